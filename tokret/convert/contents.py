"""What a file of weights contains, of any program: names, shapes and dtypes."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.io import descriptor_files, tensor_views, torch_files, weight_files
from tokret.io.regular_files import PARSING_ERRORS, open_file
from tokret.io.state_dicts import kind_of
from tokret.io.torch_pickle import FaultError, Tensor
from tokret.names import one_line
from tokret.training.checkpoint_arrays import by_name, first_cause
from tokret.training.checkpoint_inspection import why_not_read

MAX_ENTRIES = 100_000  # tensors and others; the largest models have some thousands
MAX_DEPTH = 32  # of dicts in dicts; what is further down is not listed
# The second for what is encrypted, or compressed in unusual ways.
MEMBER_ERRORS: tuple[type[Exception], ...] = (*PARSING_ERRORS, RuntimeError)
Place = tuple[str, ...]  # names of dicts within dicts, and of an entry


class Entry(NamedTuple):
    """An array: where in the file it is, and what it has."""

    place: Place
    shape: tuple[int, ...]
    dtype: str
    size: int  # values
    nbytes: int


class Contents(NamedTuple):
    """A file's content.

    Attributes:
      kind: the format.
      entries: every array.
      others: what is no array: its place, and its type.
      verified: by the file's own checksums; None for formats whose are not looked at.
    """

    kind: str
    entries: list[Entry]
    others: dict[str, str]
    verified: bool | None


def list_contents(path: Path) -> Contents:
    """Lists what is in a .pth, .safetensors, .npz, .npy or an Orbax checkpoint.

    Nothing is run, and no array is loaded; files with checksums are read once.

    Raises:
      UserError: it is missing, damaged, hostile or of another kind.
    """
    if path.is_dir():
        return _orbax(path)
    try:
        with open_file(path) as file:
            head = file.read(6)
            if head == b"\x93NUMPY":
                header = descriptor_files.read_header(path)
                entry = _entry((path.stem,), header.shape, header.dtype)
                return Contents("NumPy, npy", [entry], {}, None)
            if head.startswith(torch_files.ZIP_MAGIC):
                archive = torch_files.open_archive(file)
                if all(name.endswith(".npy") for name in archive.namelist()):
                    return Contents("NumPy, npz", _npz(path, archive), {}, None)
        return _weights(weight_files.open_weights(path))
    except FaultError as fault:
        raise UserError(f"{path}: {fault}") from fault


def _entry(place: Place, shape: tuple[int, ...], dtype: np.dtype) -> Entry:
    size = math.prod(shape)
    return Entry(place, tuple(shape), dtype.name, size, size * dtype.itemsize)


def _npz(path: Path, archive: zipfile.ZipFile) -> list[Entry]:
    found = []
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                start = member.read(descriptor_files.MAX_HEADER)
        except MEMBER_ERRORS as error:
            reason = one_line(error) or type(error).__name__
            raise FaultError(f"damaged ({reason}); get it again") from error
        header = descriptor_files.parse_header(path, start)
        place = (info.filename.removesuffix(".npy"),)
        found.append(_entry(place, header.shape, header.dtype))
    return found


def _weights(opened: weight_files.OpenedFile) -> Contents:
    leaves: dict[Place, Any] = {}
    for place, value in _leaves(opened.top):
        if len(leaves) == MAX_ENTRIES:
            raise FaultError(
                f"has more than {MAX_ENTRIES} entries, more than weights need"
            )
        leaves[place] = value
    claims = {".".join(p): v for p, v in leaves.items() if isinstance(v, Tensor)}
    arrays = tensor_views.views_of(claims, opened.starts, opened.raw)
    entries, others = [], {}
    for place, value in leaves.items():
        name = ".".join(place)
        array = arrays[name] if isinstance(value, Tensor) else value
        if isinstance(array, np.ndarray):
            entries.append(_entry(place, array.shape, array.dtype))
        else:
            others[name] = kind_of(value)
    return Contents(opened.kind, entries, others, opened.verified)


def _leaves(top: object) -> Iterator[tuple[Place, Any]]:
    """Yields what is in a tree of dicts and lists; lists only where tensors may be."""
    seen = set()  # a pickle may have one dict in many places, or in itself
    stack: list[tuple[Place, Any]] = [((), top)]
    while stack:
        place, value = stack.pop()
        inner: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list | tuple):
            if any(isinstance(item, Tensor | dict | list) for item in value):
                inner = list(enumerate(value))
        if not inner or id(value) in seen or len(place) == MAX_DEPTH:
            yield place or ("",), value
            continue
        seen.add(id(value))
        stack += [((*place, str(name)), item) for name, item in reversed(inner)]


def _orbax(path: Path) -> Contents:
    from orbax.checkpoint import v1 as ocp  # takes long to import

    if problem := why_not_read(path):
        raise UserError(f"{path}: {problem}")
    inside = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [int(step.name) for step in inside.iterdir() if step.name.isdecimal()]
    if steps:
        newest = inside / str(max(steps))
        raise UserError(f"{path}: a folder of checkpoints; name one, such as {newest}")
    try:
        try:
            tree = ocp.checkpointables_metadata(path.resolve()).metadata
        except ocp.errors.InvalidLayoutError:  # of a single tree
            tree = ocp.metadata(path.resolve()).metadata
    # Orbax and the libraries below raise anything for files that they did not write.
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as an Orbax checkpoint ({first_cause(error)})"
        ) from error
    entries, others = [], {}
    for name, leaf in by_name(tree).items():
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if shape is None or dtype is None:
            others[name.replace("/", ".")] = kind_of(leaf)
        else:
            entries.append(_entry(tuple(name.split("/")), shape, np.dtype(dtype)))
    if not entries and not others:
        raise UserError(f"{path}: not an Orbax checkpoint; name a file of weights")
    return Contents("Orbax", entries, others, None)
