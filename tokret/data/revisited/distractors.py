"""`revisitop1m`: a million distractors for the Revisited benchmarks, as a TFDS dataset.

Radenovic et al., CVPR 2018, section 3.2: 1,001,001 photos without landmarks of Oxford
or Paris. One split, `database`, in the order of the published list.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tokret.config.datasets import DistractorsConfig
from tokret.data.folders import PhotoWalk
from tokret.data.preparing import csv_files
from tokret.data.preparing.dataset_specs import (
    DatasetContents,
    DatasetSpec,
    LazyList,
    fingerprint,
    photo_features,
)
from tokret.data.preparing.dataset_writer import open_prepared, prepare_dataset
from tokret.data.preparing.photo_files import PhotoLocation, PhotoLocations
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto
from tokret.data.preparing.tar_members import locate_members
from tokret.data.preparing.unpacked_archives import unpack
from tokret.errors import UserError
from tokret.names import is_valid_name, printable

NAME = "revisitop1m"
PUBLISHED = 1_001_001
ARCHIVES = 100  # that were published
ARCHIVE = re.compile(r"revisitop1m\.(\d{1,3})\.(?:tar\.gz|tgz|tar)")
FOLDER = "jpg"  # which archives and unpacked photos may be in


def read_list(path: Path) -> list[str]:
    """Reads the list of photos, one path a line, with or without the folder jpg.

    Raises:
      UserError: names the line that is not a path, or repeats one.
    """
    lines: dict[str, int] = {}
    for number, line in csv_files.read_lines(path):
        name = plain_name(line)
        if name.startswith("/") or ".." in name.split("/") or not is_valid_name(name):
            raise csv_files.line_error(
                path, number, f"{printable(name, 80)} is no photo's path"
            )
        csv_files.add_unique(lines, name, path, number)
    if not lines:
        raise UserError(f"{path} names no photo")
    return list(lines)


def plain_name(name: str) -> str:
    """A path without the folders that only some archives have."""
    return name.removeprefix("./").removeprefix(f"{FOLDER}/")


def locate(
    names: Sequence[str], photos: Iterable[tuple[str, PhotoLocation]]
) -> PhotoLocations:
    """Locates the photos of `read_list` among existing ones; others are skipped.

    Raises:
      UserError: if a listed photo exists twice.
    """
    rows = {name: row for row, name in enumerate(names)}
    locations = PhotoLocations.unknown(len(names))
    for name, photo in photos:
        row = rows.get(plain_name(name))
        if row is None:
            continue
        if locations.file[row] >= 0:
            other = locations[row].path
            raise UserError(
                f"{printable(name, 80)} is in {other} and again in {photo.path}"
            )
        locations.add(photo.path, row, photo.offset, photo.size)
    return locations


def find_list(root: Path) -> Path:
    """Returns the list of the distractors in a folder.

    Raises:
      UserError: if it is missing.
    """
    path = root / f"{NAME}.txt"
    if not path.is_file():
        raise UserError(f"{root} lacks {NAME}.txt, the list of the distractors")
    return path


def photo_folder(root: Path) -> Path:
    """The folder of unpacked photos: jpg/ in this one, or this one."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def archive_number(name: str) -> int | None:
    """The number in an archive's name; None for other files."""
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


def unpacked_photos(root: Path) -> Iterator[tuple[str, PhotoLocation]]:
    """Yields the paths and locations of photos that are not in archives."""
    folder = photo_folder(root)
    for path in PhotoWalk(folder).files():
        yield path.relative_to(folder).as_posix(), PhotoLocation(str(path))


def _read_contents(
    root: Path, list_file: Path, archives: Sequence[Path], partial: Path
) -> DatasetContents:
    names = read_list(list_file)
    photos = unpacked_photos(root)
    if archives:
        plain = unpack(archives, partial / "plain")
        photos = itertools.chain.from_iterable(map(locate_members, plain))
    locations = locate(names, photos)
    known = np.flatnonzero(locations.file >= 0).tolist()
    unknown = np.flatnonzero(locations.file < 0).tolist()
    notes = []
    if len(names) != PUBLISHED:
        notes = [f"{list_file} names {len(names):,} photos of {PUBLISHED:,} published"]
    return DatasetContents(
        features=photo_features(),
        splits={
            "database": LazyList(
                len(known),
                lambda i: SourcePhoto(names[known[i]], locations[known[i]], {}),
            )
        },
        missing=[Problem(names[row], str(root), "missing") for row in unknown],
        notes=notes,
    )


def prepare(
    config: DistractorsConfig, data_dir: Path, workers: int = 0
) -> tfds.core.DatasetBuilder:
    """Prepares the distractors: 1,001,001 photos.

    `manual_dir` contains revisitop1m.txt, and revisitop1m.1.tar.gz to
    revisitop1m.100.tar.gz or the photos unpacked, in jpg/ or directly; "" opens what
    was prepared before. Compressed archives need as much disk space again in
    `data_dir` until they are prepared.

    Changes of unpacked photos are detected from the list and the times of their
    folders: a photo that is overwritten, its folder unchanged, is not detected.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    if not config.manual_dir:
        return open_prepared(data_dir, NAME, "")
    root = Path(config.manual_dir).expanduser()
    list_file = find_list(root)
    archives = find_archives(root)
    dated = [list_file, *(archives or _folders(root, data_dir))]
    spec = DatasetSpec(
        name=NAME,
        variant="archives" if archives else "unpacked",
        fingerprint=fingerprint(
            NAME, [(str(path.relative_to(root)), path) for path in dated]
        ),
        description=f"a million distractors (Radenovic et al., CVPR 2018) from {root}",
        processing=PhotoProcessing(),
        read_contents=functools.partial(_read_contents, root, list_file, archives),
    )
    return prepare_dataset(spec, data_dir, skip_bad=config.skip_bad, workers=workers)


def _folders(root: Path, data_dir: Path) -> list[Path]:
    folder = photo_folder(root)
    if data_dir.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"data_dir: {data_dir} is among the photos, in {folder}; choose another"
        )
    return sorted({path.parent for path in PhotoWalk(folder).files()})
