"""Descriptors that were saved with np.save, mapped from the disk."""

import contextlib
import io
import math
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.io.regular_files import open_file, parsing
from tokret.shapes import Shaped

DTYPES = ("float16", "float32", "float64")
# Rows checked together for NaN: the file may be larger than the memory.
_CHECKED_ROWS = 16384
MAX_HEADER = 2**14  # bytes; NumPy's limit is 10,000 characters
# Sums of a million products of these still fit into float32, the dtype of scores.
_LARGEST = np.float64(1e15)


def read_descriptors(
    path: str | Path,
    rows: int | None = None,
    name: str = "descriptors",
) -> Shaped[np.ndarray, "n d"]:
    """Opens an .npy file of descriptors and checks that it can be searched.

    Args:
      path: a file that np.save wrote.
      rows: how many rows it must have, or None.
      name: what the rows belong to, for errors: such as imlist or qimlist.

    Returns:
      [N, D] float16, float32 or float64, mapped from the disk and not to be written.

    Raises:
      UserError: the file is missing, is no array of descriptors, has another shape
        than required, or has NaN or infinity.
    """
    path = Path(path)
    header = read_header(path)
    if problem := _problem(header.shape, header.dtype, rows, name):
        raise UserError(f"{path}: {problem}")
    array = map_array(path, header)
    _check_finite(path, array)
    return array


class Header(NamedTuple):
    """What an .npy file claims about its array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    start: int  # of the numbers, in bytes


def read_header(path: Path) -> Header:
    """Reads what an .npy file claims, before it is mapped.

    Raises:
      UserError: the file cannot be read, or is no .npy file.
    """
    with open_file(path) as file, _parsing(path):
        start = file.read(MAX_HEADER)
    return parse_header(path, start)


def parse_header(path: Path, start: bytes) -> Header:
    """Reads what the first `MAX_HEADER` bytes of an .npy file claim, as `read_header`.

    Args:
      path: the file, or the archive that it is in, for errors.
      start: the bytes.
    """
    content = io.BytesIO(start)
    form = np.lib.format
    with _parsing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files of Python 2
        # KeyError: version 3, for fields with names that descriptors do not have.
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
        header = Header(*read[form.read_magic(content)](content), content.tell())
        # NumPy takes truth values and negative numbers for lengths.
        if not all(type(n) is int and n >= 0 for n in header.shape):
            raise ValueError(f"shape {header.shape}")
    return header


def _parsing(path: Path) -> contextlib.AbstractContextManager[None]:
    return parsing(path, "it is not an .npy file, write it with np.save")


def map_array(path: Path, header: Header) -> np.memmap:
    """Maps the array of an .npy file of numbers.

    Raises:
      UserError: the file cannot be read, or has fewer numbers than it claims.
    """
    with open_file(path) as file:
        size = header.start + math.prod(header.shape) * header.dtype.itemsize
        if header.dtype.hasobject or size > os.fstat(file.fileno()).st_size:
            raise UserError(f"{path}: cut short or malformed, write it again")
        where: Any = file
        shape = header.shape[::-1] if header.fortran_order else header.shape
        array = np.memmap(where, header.dtype, "r", header.start, shape)
        return array.T if header.fortran_order else array


def _problem(
    shape: tuple[int, ...], dtype: np.dtype, rows: int | None, name: str
) -> str:
    """Returns why an array cannot be the descriptors, "" if it can."""
    if len(shape) != 2:
        return f"has shape {shape}, descriptors have [rows, dimensions]"
    if dtype.str not in [np.dtype(known).str for known in DTYPES]:
        known = f"{', '.join(DTYPES)} in this machine's byte order"
        return f"has dtype {dtype}, descriptors are {known}"
    if 0 in shape:
        return f"has shape {shape} and is empty, extract again"
    if rows is not None and shape[0] != rows:
        return (
            f"has {shape[0]} rows and {name} has {rows}, there must be one row for "
            "each, in the same order"
        )
    return ""


def _check_finite(path: Path, array: Shaped[np.ndarray, "n d"]) -> None:
    bad, first = 0, -1
    for start in range(0, len(array), _CHECKED_ROWS):
        rows = array[start : start + _CHECKED_ROWS]
        # NaN compares false.
        finite = (np.abs(rows) <= _LARGEST).all(axis=1)
        if bad == 0 and not finite.all():
            first = start + int(np.argmin(finite))
        bad += int(np.count_nonzero(~finite))
    if bad:
        raise UserError(
            f"{path}: {bad} of {len(array)} rows hold NaN, infinity or numbers beyond "
            f"{_LARGEST:g}, whose products float32 cannot hold, the first is "
            f"row {first}; extract them again"
        )
