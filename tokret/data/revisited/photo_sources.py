"""Where the photos of Oxford and Paris are: the hosts' archives, or folders of them.

Philbin et al., "Object retrieval with large vocabularies and fast spatial matching",
CVPR 2007, and "Lost in quantization", CVPR 2008. Since 2022 the hosts offer only a
release with blurred faces; its photos have the same names.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokret.data.folders import PhotoWalk
from tokret.data.preparing.photo_files import PhotoLocation
from tokret.data.preparing.tar_members import locate_members
from tokret.data.preparing.unpacked_archives import unpack
from tokret.errors import UserError
from tokret.names import printable

SUFFIXES = (".tgz", ".tar.gz", ".tar")


@dataclasses.dataclass(frozen=True)
class City:
    """The photos of a city."""

    name: str  # of the city
    # by release, the archives' names without suffix; all are needed
    archives: Mapping[str, tuple[str, ...]]
    # of a photo's name without suffix, which no other city's matches
    pattern: re.Pattern[str]
    # photos that the hosts list as corrupted, which are web pages
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
class CitySources:
    """The files below `root` that a city's photos are read from: archives or photos.

    The release is original, blurred, or `unpacked`, which may be either.
    """

    city: City
    release: str
    root: Path
    archives: Sequence[Path]
    files: Sequence[Path]
    notes: Sequence[str] = ()  # on what was skipped

    def all(self) -> list[Path]:
        """The archives or the photos."""
        return [*self.archives, *self.files]

    def locations(self, partial: Path) -> dict[str, PhotoLocation]:
        """Locates each photo's bytes, by name without suffix.

        Uncompressed copies of archives are written below `partial`.

        Raises:
          UserError: if an archive is damaged, or two photos have the same name.
        """
        found = [(path.name, PhotoLocation(str(path))) for path in self.files]
        if not self.files:
            plain = unpack(self.archives, partial / "plain")
            found = [photo for path in plain for photo in locate_members(path)]
        locations: dict[str, PhotoLocation] = {}
        for name, location in found:
            stem = stem_of(name, self.city)
            if stem is None:
                continue
            if stem in locations:
                raise UserError(
                    f"{self.root} contains two photos {stem}.jpg: in {location.path} "
                    f"and in {locations[stem].path}; remove one ({printable(name, 80)})"
                )
            locations[stem] = location
        return locations


def stem_of(path: str, city: City) -> str | None:
    """A photo's file name without suffix; None if it is not a photo of the city."""
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    if suffix.lower() not in ("jpg", "jpeg") or not city.pattern.fullmatch(stem):
        return None
    return stem


def find_sources(root: Path, city: City, release: str) -> CitySources:
    """Locates a city's archives in a folder or, where there are none, its photos below.

    The release is `original` or `blurred`; "" for the one that exists.

    Raises:
      UserError: if there is nothing, not all of it, or both releases.
    """
    if release and release not in city.archives:
        raise UserError(
            f"release is {release!r}; it must be one of: {', '.join(city.archives)}, "
            "or empty for the one that exists"
        )
    if not root.is_dir():
        raise UserError(f"manual_dir: {root} is not a folder")
    found = {
        name: [_find_archive(root, archive) for archive in archives]
        for name, archives in city.archives.items()
        if release in ("", name)
    }
    existing = {name: paths for name, paths in found.items() if any(paths)}
    if len(existing) > 1:
        raise UserError(
            f"release: {root} contains both of {city.name}; choose "
            f"{' or '.join(existing)}"
        )
    for name, paths in existing.items():
        archives = [path for path in paths if path]
        if len(archives) < len(paths):
            missing = city.archives[name][paths.index(None)]
            raise UserError(f"{root} lacks {missing}.tgz, but has {archives[0].name}")
        return CitySources(city, name, root, archives, ())
    walk = PhotoWalk(root)
    files = [path for path in walk.files() if stem_of(path.name, city)]
    if not files:
        names = " and ".join(
            f"{name}.tgz" for names in city.archives.values() for name in names
        )
        raise UserError(
            f"{root} contains no photos of {city.name}: neither {names} nor unpacked "
            "ones"
        )
    return CitySources(city, "unpacked", root, (), files, walk.notes())


def _find_archive(root: Path, name: str) -> Path | None:
    paths = (root / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
