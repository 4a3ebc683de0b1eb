"""`revisitop1m`: a million distractors for the Revisited benchmarks, as a TFDS dataset.

Radenovic et al., CVPR 2018, section 3.2: 1,001,001 photos without landmarks of Oxford
or Paris. One split, `database`, in the order of the published list.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tokret.data.preparing import engine
from tokret.data.preparing.archives import members, shown
from tokret.data.preparing.folders import files_below
from tokret.data.preparing.photos import Place, Treatment
from tokret.data.preparing.places import Places
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.recipes import Plan, Recipe, fingerprint
from tokret.data.preparing.shards import Item
from tokret.data.preparing.unpacked_archives import plain_archives
from tokret.errors import UserError

NAME = "revisitop1m"
PUBLISHED = 1_001_001
ARCHIVES = 100  # that were published
ARCHIVE = re.compile(r"revisitop1m\.(\d{1,3})\.(?:tar\.gz|tgz|tar)")
FOLDER = "jpg"  # which archives and unpacked photos may stand in


def read_list(path: Path) -> list[str]:
    """Reads the list of photos, one path a line, below the folder jpg or not.

    Raises:
      UserError: names the line that is no path, or repeats one.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text") from error
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name = plain_name(line.strip())
        if not name:
            continue
        if name.startswith("/") or ".." in name.split("/") or not name.isprintable():
            raise UserError(f"{path}, line {number}: {shown(name)} is no photo's path")
        if name in lines:
            raise UserError(
                f"{path}, line {number}: {shown(name)} stands in line {lines[name]} too"
            )
        lines[name] = number
    if not lines:
        raise UserError(f"{path} names no photo")
    return list(lines)


def plain_name(name: str) -> str:
    """A path without the folders that archives put before it, or do not."""
    return name.removeprefix("./").removeprefix(f"{FOLDER}/")


@dataclasses.dataclass(frozen=True)
class Distractors:
    """Photos in the list's order, and where they lie."""

    names: Sequence[str]
    places: Places

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> list[Item]:
        rows = range(*part.indices(len(self)))
        return [Item(self.names[row], self.places[row], {}) for row in rows]

    def there(self) -> "Distractors":
        """Those of them that are there."""
        kept = np.flatnonzero(self.places.file >= 0)
        return Distractors(
            [self.names[row] for row in kept.tolist()], self.places.take(kept)
        )

    def missing(self) -> list[str]:
        """The names of the others."""
        rows = np.flatnonzero(self.places.file < 0)
        return [self.names[row] for row in rows.tolist()]


def locate(names: Sequence[str], photos: Iterable[tuple[str, Place]]) -> Distractors:
    """Finds the listed photos among those that there are.

    Args:
      names: from `read_list`.
      photos: paths, and where they lie; what is not listed is passed over.

    Raises:
      UserError: if a listed photo is there twice.
    """
    rows = {name: row for row, name in enumerate(names)}
    places = Places.of(len(names))
    for name, place in photos:
        row = rows.get(plain_name(name))
        if row is None:
            continue
        if places.file[row] >= 0:
            other = places.files[places.file[row]]
            raise UserError(f"{shown(name)} is in {other} and again in {place.path}")
        places.add(place.path, row, place.offset, place.size)
    return Distractors(names, places)


def find_list(root: Path) -> Path:
    """Returns the list of the distractors in a folder.

    Raises:
      UserError: if it is not there.
    """
    path = root / f"{NAME}.txt"
    if not path.is_file():
        raise UserError(f"{root} lacks {NAME}.txt, the list of the distractors")
    return path


def photo_folder(root: Path) -> Path:
    """The folder of unpacked photos: jpg/ in this one, or it itself."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def archive_number(name: str) -> int | None:
    """The number in an archive's name; None for any other file's."""
    match = ARCHIVE.fullmatch(name)
    return int(match[1]) if match else None


def find_archives(root: Path) -> list[Path]:
    """Lists the archives in a folder, or in jpg/ in it, by number."""
    for folder in (root, root / FOLDER):
        if folder.is_dir():
            found = {
                number: path
                for path in sorted(folder.iterdir())
                if (number := archive_number(path.name)) is not None
            }
            if found:
                return [found[number] for number in sorted(found)]
    return []


def _members(archives: Sequence[Path], partial: Path) -> Iterator[tuple[str, Place]]:
    for path in plain_archives(archives, partial / "plain"):
        for member in members(path):
            yield member.name, Place(str(path), member.offset, member.size)


def _unpacked(root: Path) -> Iterator[tuple[str, Place]]:
    folder = photo_folder(root)
    for path in files_below(folder):
        yield path.relative_to(folder).as_posix(), Place(str(path))


def _plan(root: Path, list_file: Path, archives: Sequence[Path], partial: Path) -> Plan:
    names = read_list(list_file)
    photos = _members(archives, partial) if archives else _unpacked(root)
    found = locate(names, photos)
    missing = [Problem(name, str(root), "missing") for name in found.missing()]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "filename": tfds.features.Text(),
        }
    )
    there = found.there() if missing else found
    notes = []
    if len(names) != PUBLISHED:
        notes = [f"{list_file} names {len(names):,} photos of {PUBLISHED:,} published"]
    return Plan(features, {"database": there}, missing, notes=notes)


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares the distractors: 1,001,001 photos.

    Unpacked photos are told from others by the list and by the times of the folders
    they are in: one that is changed in its place, the folder left as it was, is not
    noticed.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with revisitop1m.txt and revisitop1m.1.tar.gz to
        revisitop1m.100.tar.gz, or with the photos unpacked, in jpg/ or directly; ""
        takes what was prepared before. Compressed archives need as much room again
        in data_dir until they are prepared.
      skip_bad: leave out photos that are missing or broken, with a warning and a list
        of them.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    if not manual_dir:
        return engine.require_prepared(Path(data_dir), NAME, "")
    root = Path(manual_dir).expanduser()
    list_file = find_list(root)
    archives = find_archives(root)
    stamped = [list_file, *(archives or _folders(root, Path(data_dir)))]
    recipe = Recipe(
        name=NAME,
        variant="archives" if archives else "unpacked",
        fingerprint=fingerprint(
            NAME, [(str(path.relative_to(root)), path) for path in stamped]
        ),
        description=f"a million distractors (Radenovic et al., CVPR 2018) from {root}",
        treatment=Treatment(),
        plan=functools.partial(_plan, root, list_file, archives),
    )
    return engine.prepare(recipe, data_dir, skip_bad=skip_bad, workers=workers)


def _folders(root: Path, data_dir: Path) -> list[Path]:
    folder = photo_folder(root)
    if data_dir.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{data_dir} lies among the photos, in {folder}; name another")
    return sorted({path.parent for path in files_below(folder)})
