"""Where Google Landmarks v2's photos lie: 500 tars, or the folders a/b/c in them.

The tars are never unpacked. Going through 500 GB for the places of four million photos
takes long, so what each tar holds is kept beside the prepared data, for every variant
of the dataset and for the next start after a kill.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from tokret.data.google_landmarks.lists import PHOTO, find, photo_name
from tokret.data.preparing.archives import members
from tokret.data.preparing.places import Places
from tokret.errors import UserError

ARCHIVE = re.compile(r"images_\d{3}\.tar")
ARCHIVES = 500  # that were published
HEX = "0123456789abcdef"
THREADS = 8  # they wait for the disk

Item = TypeVar("Item")
Result = TypeVar("Result")


class Held(NamedTuple):
    """The M photos of one tar, in its order.

    Attributes:
      ids: [M] uint64.
      offsets: [M] int64 of their first bytes.
      sizes: [M] int64 in bytes.
    """

    ids: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def find_archives(root: Path) -> list[Path]:
    """Lists the tars in a folder, or in train/ in it, in order."""
    for folder in (root, root / "train"):
        if folder.is_dir():
            found = [p for p in sorted(folder.iterdir()) if ARCHIVE.fullmatch(p.name)]
            if found:
                return found
    return []


def find_tree(root: Path) -> Path | None:
    """Returns the folder that holds the folders 0 to f: this one, or train/ in it."""
    for folder in (root, root / "train"):
        if any((folder / name).is_dir() for name in HEX):
            return folder
    return None


def leaves(tree: Path) -> list[Path]:
    """Lists those of the 4,096 folders a/b/c that there are."""
    return [
        folder
        for a in HEX
        if (tree / a).is_dir()
        for b in HEX
        if (tree / a / b).is_dir()
        for c in HEX
        if (folder := tree / a / b / c).is_dir()
    ]


def tree_path(tree: Path, photo: int) -> str:
    """Where a photo lies that was unpacked."""
    name = photo_name(photo)
    return os.path.join(tree, *name[:3], f"{name}.jpg")


def photo_number(file_name: str) -> int | None:
    """A photo's id from its file's name; None for any other file."""
    stem, _, suffix = file_name.rpartition(".")
    return int(stem, 16) if suffix == "jpg" and PHOTO.fullmatch(stem) else None


def locate_in_tree(ids: np.ndarray, tree: Path) -> np.ndarray:
    """Says which photos there are among the unpacked ones.

    Args:
      ids: [N] uint64 in order.
      tree: from `find_tree`.

    Returns:
      [N] bool.
    """

    def look(folder: Path) -> np.ndarray:
        photos = [photo_number(name) for name in os.listdir(folder)]
        return np.array([photo for photo in photos if photo is not None], np.uint64)

    there = np.zeros(len(ids), bool)
    for found in _threaded(look, leaves(tree), "looking", "folder"):
        rows, known = find(ids, found)
        there[rows[known]] = True
    return there


def locate_in_archives(ids: np.ndarray, tars: Sequence[Path], cache: Path) -> Places:
    """Finds photos in tars.

    Args:
      ids: [N] uint64 in order.
      tars: from `find_archives`.
      cache: a folder for what each tar holds.

    Returns:
      The places of the N photos.

    Raises:
      UserError: if a tar is not sound, or a photo is there twice.
    """
    cache.mkdir(parents=True, exist_ok=True)

    def look(path: Path) -> Held:
        return _held(path, cache)

    places = Places.of(len(ids))
    for path, held in zip(
        tars, _threaded(look, tars, "reading tars", "tar"), strict=True
    ):
        rows, known = find(ids, held.ids)
        rows = rows[known]
        again = places.file[rows] >= 0
        if again.any():
            name = photo_name(int(ids[rows[again][0]]))
            other = places.files[places.file[rows[again][0]]]
            raise UserError(f"photo {name} is in {other} and again in {path}")
        places.add(str(path), rows, held.offsets[known], held.sizes[known])
    return places


def _held(path: Path, cache: Path) -> Held:
    """What a tar holds, from the cache if it was looked through before."""
    info = path.stat()
    state = repr((str(path.resolve()), info.st_size, info.st_mtime_ns))
    digest = hashlib.sha256(state.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    target = cache / f"{path.stem}-{digest}.npz"
    try:
        with np.load(target) as arrays:
            return Held(*(arrays[name] for name in Held._fields))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        held = _look_through(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with partial.open("wb") as file:
        np.savez(file, **held._asdict())
    os.replace(partial, target)
    return held


def _look_through(path: Path) -> Held:
    rows = []
    for member in members(path):
        photo = photo_number(member.name.rpartition("/")[2])
        if photo is not None:
            rows.append((photo, member.offset, member.size))
    ids, offsets, sizes = zip(*rows, strict=True) if rows else ((), (), ())
    held = Held(
        np.array(ids, np.uint64), np.array(offsets, np.int64), np.array(sizes, np.int64)
    )
    if len(np.unique(held.ids)) < len(rows):
        raise UserError(f"{path} holds a photo twice, in different folders")
    return held


def _threaded(
    look: Callable[[Item], Result], items: Sequence[Item], words: str, unit: str
) -> Iterator[Result]:
    """Looks at many things at once; yields what comes of it, in order."""
    with ThreadPoolExecutor(THREADS) as threads:
        # disable=None: no bar where standard error is no terminal.
        yield from tqdm(
            threads.map(look, items),
            total=len(items),
            desc=words,
            unit=unit,
            disable=None,
        )
