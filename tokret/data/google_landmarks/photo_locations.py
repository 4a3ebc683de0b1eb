"""Where Google Landmarks v2's photos are: 500 tars, or the folders a/b/c in them.

The tars are not unpacked. Reading the headers of four million photos in 500 GB takes
long, so an index of each tar is stored beside the prepared data, for every variant of
the dataset and for the next start after a kill.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from tokret.data.google_landmarks.photo_lists import PHOTO, find, photo_name
from tokret.data.preparing import source_files
from tokret.data.preparing.photo_files import PhotoLocations
from tokret.data.preparing.tar_members import list_members
from tokret.errors import UserError
from tokret.io.atomic_files import replacing
from tokret.io.regular_files import parsing, read_file
from tokret.io.remote.fetching import fetch
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.runtime.progress import progress_bar

ARCHIVE = re.compile(r"images_\d{3}\.tar")
ARCHIVES = 500  # that were published
HEX = "[0-9a-f]"
MAX_INDEX = 2**28  # bytes; that of a published tar has 0.2 MB
THREADS = 8  # they wait for the disk

Result = TypeVar("Result")


class TarIndex(NamedTuple):
    """The photos of one tar, in order: [M] uint64 ids, [M] int64 offsets and sizes."""

    ids: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def find_archives(root: Path) -> list[Path]:
    """Lists the tars in a folder, or in train/ in it, in order."""
    for folder in (root, root / "train"):
        names = filter(ARCHIVE.fullmatch, source_files.list_names(folder))
        if found := [folder / name for name in names]:
            return found
    return []


def find_tree(root: Path) -> Path | None:
    """Returns the folder that has the folders 0 to f: this one, or train/ in it."""
    for folder in (root, root / "train"):
        if any(path.is_dir() for path in folder.glob(HEX)):
            return folder
    return None


def tree_folders(tree: Path) -> list[Path]:
    """Lists those of the 4,096 folders a/b/c that exist."""
    return [p for p in sorted(tree.glob(f"{HEX}/{HEX}/{HEX}")) if p.is_dir()]


def tree_path(tree: Path, photo: int) -> str:
    """The path of an unpacked photo."""
    name = photo_name(photo)
    return os.path.join(tree, *name[:3], f"{name}.jpg")


def photo_number(file_name: str) -> int | None:
    """A photo's id from its file's name; None for other files."""
    stem, _, suffix = file_name.rpartition(".")
    return int(stem, 16) if suffix == "jpg" and PHOTO.fullmatch(stem) else None


def locate_in_tree(ids: np.ndarray, tree: Path) -> np.ndarray:
    """Returns [N] bool: which of [N] uint64 ids, in order, have an unpacked photo."""

    def list_ids(folder: Path) -> np.ndarray:
        photos = [photo_number(name) for name in os.listdir(folder)]
        return np.array([photo for photo in photos if photo is not None], np.uint64)

    exists = np.zeros(len(ids), bool)
    for found in _in_threads(list_ids, tree_folders(tree), "listing", "folder"):
        rows, known = find(ids, found)
        exists[rows[known]] = True
    return exists


def locate_in_archives(
    ids: np.ndarray, tars: Sequence[Path], cache: Path
) -> PhotoLocations:
    """Locates photos, [N] uint64 ids in order, in the tars from `find_archives`.

    The tars' indexes are stored in the folder `cache`.

    Raises:
      UserError: if a tar is damaged, or a photo exists twice.
    """
    fetch(cache)  # if it is in a bucket
    cache.mkdir(parents=True, exist_ok=True)
    locations = PhotoLocations.unknown(len(ids))
    indexes = _in_threads(lambda tar: _index(tar, cache), tars, "reading tars", "tar")
    for path, index in zip(tars, indexes, strict=True):
        rows, known = find(ids, index.ids)
        rows = rows[known]
        repeated = rows[locations.file[rows] >= 0]
        if len(repeated):
            name = photo_name(int(ids[repeated[0]]))
            other = locations[int(repeated[0])].path
            raise UserError(f"photo {name} is in {other} and again in {path}")
        locations.add(str(path), rows, index.offsets[known], index.sizes[known])
    return locations


def _index(path: Path, cache: Path) -> TarIndex:
    """A tar's index, from the cache if it was read before."""
    (found,) = source_files.states([path])
    state = repr((url_of(path) or str(path.resolve()), *found))
    digest = hashlib.sha256(state.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    target = cache / f"{path.stem}-{digest}.npz"
    try:
        content = io.BytesIO(read_file(target, MAX_INDEX))
        with parsing(target, "it is made again"), np.load(content) as arrays:
            return TarIndex(*(arrays[name] for name in TarIndex._fields))
    except UserError:
        with source_files.here(path):
            index = _read_index(path)
    with replacing(target) as partial, partial.open("wb") as file:
        np.savez(file, **index._asdict())
    publish(target)
    return index


def _read_index(path: Path) -> TarIndex:
    rows = []
    for member in list_members(path):
        photo = photo_number(member.name.rpartition("/")[2])
        if photo is not None:
            rows.append((photo, member.offset, member.size))
    ids, offsets, sizes = np.array(rows, np.uint64).reshape(-1, 3).T
    index = TarIndex(ids, offsets.astype(np.int64), sizes.astype(np.int64))
    if len(np.unique(index.ids)) < len(rows):
        raise UserError(f"{path} contains a photo twice, in different folders")
    return index


def _in_threads(
    function: Callable[[Path], Result], items: Sequence[Path], words: str, unit: str
) -> Iterator[Result]:
    """Calls a function in threads, with a bar; yields the results in order."""
    with ThreadPoolExecutor(THREADS) as threads:
        results = threads.map(function, items)
        yield from progress_bar(results, desc=words, total=len(items), unit=unit)
