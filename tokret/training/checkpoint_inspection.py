"""A checkpoint's folder -> what is in it, and whether it is whole.

The folder may be anybody's: links are not followed, metadata may be of any size
and say anything, and arrays may claim to be larger than this machine's memory.
"""

import dataclasses
import math
import os
import stat
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from tokret.errors import UserError
from tokret.training.checkpoint_contents import STATE
from tokret.training.checkpoint_description import FILE, Description, read_description
from tokret.training.weights import replicated

# Files that are read whole before anything in them can be checked.
METADATA = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt")
LARGEST = 2**26  # bytes of one of them


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a checkpoint, as it says of itself."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
      path: the checkpoint's folder.
      written: seconds since 1970.
      size: bytes on disk.
      description: None if it has none, or none that can be read.
      arrays: by their names; {} if they cannot be read.
      wrong: why it is not whole; "" if it is.
    """

    path: Path
    written: float
    size: int
    description: Description | None
    arrays: dict[str, Array]
    wrong: str


def examine(path: Path, *, read_all: bool) -> Examined:
    """Examines a checkpoint.

    Args:
      path: its folder.
      read_all: whether every array is read, which is the only proof that it is whole.

    Raises:
      UserError: if there is no such folder.
    """
    if path.is_symlink() or not path.is_dir():
        raise UserError(f"{path} is no checkpoint: it is not a folder")
    size, wrong = _walk(path)
    wrong = wrong if os.path.lexists(path / FILE) else f"it holds no {FILE}"
    description, arrays = None, {}
    try:
        if not wrong:
            description = read_description(path)
            shapes = _shapes(path)
            arrays = _arrays(shapes)
            if read_all:
                wrong = _read(path, shapes, sum(a.nbytes for a in arrays.values()))
    except UserError as error:
        wrong = str(error)
    return Examined(path, path.stat().st_mtime, size, description, arrays, wrong)


def size_of(path: Path) -> int:
    """Returns the bytes of a folder's files; what links lead to is not counted."""
    return _walk(path)[0]


def _walk(path: Path) -> tuple[int, str]:
    """Returns a folder's bytes, and what forbids to read it further; "" if nothing."""
    total, wrong = 0, ""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = os.path.join(folder, name)
            found = os.lstat(entry)
            if stat.S_ISDIR(found.st_mode):
                continue
            short = os.path.relpath(entry, path)
            if not stat.S_ISREG(found.st_mode):
                wrong = wrong or f"{short!r} is a link or a device, which is not read"
                continue
            total += found.st_size
            if name in METADATA and found.st_size > LARGEST:
                wrong = wrong or f"{short!r} has {found.st_size} bytes, too many"
    return total, wrong


def _shapes(path: Path) -> Any:
    """Returns the tree of all arrays, as shapes.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if saved is None:
            raise ValueError("its list of arrays is missing or damaged")
        return replicated(saved)
    except _ANYTHING as error:
        raise UserError(
            f"its list of arrays cannot be read ({_short(error)})"
        ) from error


def _arrays(shapes: Any) -> dict[str, Array]:
    return {
        jax.tree_util.keystr(key, simple=True, separator="/"): Array(
            tuple(leaf.shape),
            leaf.dtype.name,
            math.prod(leaf.shape) * leaf.dtype.itemsize,
        )
        for key, leaf in jax.tree.leaves_with_path(shapes)
    }


def _read(path: Path, shapes: Any, nbytes: int) -> str:
    """Reads every array; returns why that failed, "" if it did not."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if nbytes > memory:
        return f"its arrays claim {nbytes} bytes, more than this machine's memory"
    try:
        jax.block_until_ready(
            ocp.load_checkpointables(path.resolve(), {STATE: shapes})[STATE]
        )
    except _ANYTHING as error:
        return _short(error)
    return ""


# Orbax and what it stands on raise all of these for files that are not theirs.
_ANYTHING = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(RecursionError, OverflowError, NotImplementedError, AssertionError),
    *(RuntimeError, MemoryError),
)


def _short(error: Exception) -> str:
    """Returns what the innermost library said: the outer ones only guess."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    words = " ".join(str(inner).split())
    return words[:300] if words else type(inner).__name__
