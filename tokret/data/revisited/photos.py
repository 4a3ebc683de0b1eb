"""Where the photos of Oxford and Paris lie: the hosts' archives, or folders of them.

Philbin et al., "Object retrieval with large vocabularies and fast spatial matching",
CVPR 2007, and "Lost in quantization", CVPR 2008. Since 2022 the hosts offer only a
release with blurred faces; its photos have the same names.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokret.data.preparing.archives import members, shown
from tokret.data.preparing.folders import files_below
from tokret.data.preparing.photos import Place
from tokret.data.preparing.unpacked_archives import plain_archives
from tokret.errors import UserError

SUFFIXES = (".tgz", ".tar.gz", ".tar")


@dataclasses.dataclass(frozen=True)
class City:
    """The photos of a city.

    Attributes:
      name: of the city.
      archives: by release, the archives' names without suffix; each is needed.
      pattern: of a photo's name without suffix, which no other city's has.
      broken: photos that the hosts list as corrupted: web pages with the name of one.
    """

    name: str
    archives: Mapping[str, tuple[str, ...]]
    pattern: re.Pattern[str]
    broken: frozenset[str] = frozenset()


OXFORD = City(
    name="Oxford",
    archives={"original": ("oxbuild_images",), "blurred": ("oxbuild_images-v1",)},
    pattern=re.compile(r"(?!paris_)[a-z]+(_[a-z]+)*_\d{6}"),
)
PARIS = City(
    name="Paris",
    archives={
        "original": ("paris_1", "paris_2"),
        "blurred": ("paris_1-v1", "paris_2-v1"),
    },
    pattern=re.compile(r"paris_[a-z]+_\d{6}"),
    # https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/corrupt.txt
    broken=frozenset(
        f"paris_{name}"
        for name in (
            "louvre_000136 louvre_000146 moulinrouge_000422 museedorsay_001059 "
            "notredame_000188 pantheon_000284 pantheon_000960 pantheon_000974 "
            "pompidou_000195 pompidou_000196 pompidou_000201 pompidou_000467 "
            "pompidou_000640 sacrecoeur_000299 sacrecoeur_000330 sacrecoeur_000353 "
            "triomphe_000662 triomphe_000833 triomphe_000863 triomphe_000867"
        ).split()
    ),
)


@dataclasses.dataclass(frozen=True)
class Sources:
    """What a city's photos are read from.

    Attributes:
      city: which.
      release: original, blurred, or `unpacked`, which may be either.
      root: the folder that was named.
      archives: in it; none where photos lie unpacked.
      files: unpacked photos below it.
    """

    city: City
    release: str
    root: Path
    archives: Sequence[Path]
    files: Sequence[Path]

    def stamped(self) -> list[tuple[str, Path]]:
        """The files that decide the photos, and their names, for a fingerprint."""
        files = [*self.archives, *self.files]
        return [(str(path.relative_to(self.root)), path) for path in files]

    def places(self, partial: Path) -> dict[str, Place]:
        """Finds each photo's bytes, by name without suffix.

        Args:
          partial: a folder for plain copies of compressed archives.

        Raises:
          UserError: if an archive is not sound, or a name stands for two photos.
        """
        if self.files:
            return self._unique((path.name, Place(str(path))) for path in self.files)
        plain = plain_archives(self.archives, partial / "plain")
        return self._unique(
            (member.name, Place(str(path), member.offset, member.size))
            for path in plain
            for member in members(path)
        )

    def _unique(self, photos: Iterable[tuple[str, Place]]) -> dict[str, Place]:
        places: dict[str, Place] = {}
        for name, place in photos:
            stem = stem_of(name.rpartition("/")[2], self.city)
            if stem is None:
                continue
            if stem in places:
                raise UserError(
                    f"{self.root} holds two photos {stem}.jpg: in {place.path} and in "
                    f"{places[stem].path}; remove one ({shown(name)})"
                )
            places[stem] = place
        return places


def stem_of(file_name: str, city: City) -> str | None:
    """The photo's name, None for a file that is no photo of the city's."""
    stem, dot, suffix = file_name.rpartition(".")
    if suffix.lower() not in ("jpg", "jpeg") or not city.pattern.fullmatch(stem):
        return None
    return stem


def find_sources(root: Path, city: City, release: str) -> Sources:
    """Finds a city's archives in a folder or, where there are none, its photos below.

    Args:
      root: the folder.
      city: which.
      release: `original` or `blurred`; "" takes the one that is there.

    Raises:
      UserError: if there is nothing, not all of it, or both releases.
    """
    if release and release not in city.archives:
        raise UserError(
            f"data.release is {release!r}; it must be one of: "
            f"{', '.join(city.archives)}, or empty for the one that is there"
        )
    if not root.is_dir():
        raise UserError(f"data.manual_dir: {root} is not a folder")
    found = {
        word: _find_archives(root, names)
        for word, names in city.archives.items()
        if release in ("", word)
    }
    there = {word: paths for word, paths in found.items() if any(paths.values())}
    if len(there) > 1:
        raise UserError(
            f"{root} holds both releases of {city.name}; name one by data.release: "
            f"{' or '.join(there)}"
        )
    for word, paths in there.items():
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            raise UserError(f"{root} lacks {missing[0]}.tgz, the other part is there")
        archives = [path for path in paths.values() if path]
        return Sources(city, word, root, archives, ())
    files = [path for path in files_below(root) if stem_of(path.name, city)]
    if not files:
        names = " and ".join(
            f"{name}.tgz" for names in city.archives.values() for name in names
        )
        raise UserError(
            f"{root} holds no photos of {city.name}: neither {names} nor unpacked ones"
        )
    return Sources(city, "unpacked", root, (), files)


def _find_archives(root: Path, names: Sequence[str]) -> dict[str, Path | None]:
    return {
        name: next(
            (root / f"{name}{s}" for s in SUFFIXES if (root / f"{name}{s}").is_file()),
            None,
        )
        for name in names
    }
