"""What a checkpoint's folder contains, and whether it is complete.

The folder may come from anybody: links are not followed, metadata may have any size and
content, and arrays may claim to be larger than this machine's memory.
"""

import contextlib
import dataclasses
import os
import stat
from pathlib import Path
from typing import Any

import jax
import msgspec

from tokret.errors import UserError
from tokret.io.json_files import read_json
from tokret.io.remote.urls import url_of
from tokret.training.checkpoint_arrays import (
    SavedArrays,
    by_name,
    first_cause,
    on_first_device,
    open_arrays,
)
from tokret.training.checkpoint_digests import damaged
from tokret.training.checkpoint_metadata import CheckpointMetadata, read_metadata
from tokret.training.remote_runs import fetch_checkpoint

# Files that are read whole before anything in them can be checked.
METADATA = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt")
LARGEST = 2**26  # bytes of one of them


class _Times(msgspec.Struct):
    """What Orbax records in `_CHECKPOINT_METADATA`."""

    commit_timestamp_nsecs: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect_checkpoint` found.

    Attributes:
      path: the checkpoint's folder.
      written: seconds since 1970.
      size: bytes on disk.
      metadata: None if it cannot be read.
      arrays: by their names; {} if they cannot be read.
      problem: why it cannot be used, as "damaged (REASON): REMEDY"; "" if it is whole.
    """

    path: Path
    written: float
    size: int
    metadata: CheckpointMetadata | None
    arrays: dict[str, jax.ShapeDtypeStruct]
    problem: str


def inspect_checkpoint(path: Path, *, read_all: bool) -> Inspection:
    """Inspects a checkpoint's folder; its files are compared with their digests.

    With `read_all` every array is read too.

    Raises:
      UserError: if there is no such folder.
    """
    fetch_checkpoint(path)
    if path.is_symlink() or not path.is_dir():
        raise UserError(f"{path} is not a checkpoint: it is not a folder")
    size, reason = _scan(path)
    metadata: CheckpointMetadata | None = None
    arrays: dict[str, jax.ShapeDtypeStruct] = {}
    problem = ""
    try:
        if reason:
            raise damaged(path, reason)
        metadata = read_metadata(path)
        saved = open_arrays(path)
        shapes = on_first_device(saved.shapes)
        arrays = by_name(shapes)
        if read_all:
            _read(saved, shapes)
    except UserError as error:
        problem = str(error).removeprefix(f"{path}: ")
    return Inspection(path, _written(path), size, metadata, arrays, problem)


def _written(path: Path) -> float:
    """Returns when a checkpoint was written; the time of a local copy is another."""
    if url_of(path) is not None:
        with contextlib.suppress(UserError):
            return (
                read_json(
                    path / METADATA[0], _Times, "", LARGEST
                ).commit_timestamp_nsecs
                / 1e9
            )
    return path.stat().st_mtime


def nbytes_of(array: jax.ShapeDtypeStruct) -> int:
    """Returns the bytes of an array."""
    return int(array.size * array.dtype.itemsize)


def size_of(path: Path) -> int:
    """Returns the bytes of a folder's files, without what links lead to."""
    return _scan(path)[0]


def why_not_read(path: Path) -> str:
    """Returns why a checkpoint's folder must not be read; "" if it may be."""
    return _scan(path)[1]


def _scan(path: Path) -> tuple[int, str]:
    """Returns a folder's bytes, and why it must not be read; "" if it may be."""
    total, problem = 0, ""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = os.path.join(folder, name)
            found = os.lstat(entry)
            if stat.S_ISDIR(found.st_mode):
                continue
            short = os.path.relpath(entry, path)
            if not stat.S_ISREG(found.st_mode):
                problem = problem or f"{short!r} is a link or a device, never read"
                continue
            total += found.st_size
            if name in METADATA and found.st_size > LARGEST:
                problem = problem or f"{short!r} has {found.st_size} bytes, too many"
    return total, problem


def _read(saved: SavedArrays, shapes: Any) -> None:
    nbytes = sum(map(nbytes_of, jax.tree.leaves(shapes)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if nbytes > memory:
        raise UserError(
            f"its arrays claim {nbytes} bytes, more than this machine's memory"
        )
    try:
        jax.block_until_ready(saved.load(shapes))
    except UserError:
        raise
    except Exception as error:  # whatever an array of another program raises
        raise damaged(saved.path, first_cause(error)) from error
