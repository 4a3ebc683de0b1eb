"""Descriptors that were saved with np.save, mapped from the disk."""

import tokenize
from pathlib import Path

import numpy as np

from tokret.errors import UserError
from tokret.shapes import Shaped

DTYPES = ("float16", "float32", "float64")
# Rows checked together for NaN: the file may be larger than the memory.
_CHECKED_ROWS = 16384
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
    shape, dtype = _header(path)
    if problem := _problem(shape, dtype, rows, name):
        raise UserError(f"{path}: {problem}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cut short or malformed, write it again") from error
    _check_finite(path, array)
    return array


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the shape and dtype that an .npy file claims, before it is mapped."""
    form = np.lib.format
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    try:
        with path.open("rb") as file:
            shape, _, dtype = readers[form.read_magic(file)](file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    # KeyError: version 3, for fields with names that descriptors do not have.
    except (ValueError, KeyError, SyntaxError, tokenize.TokenError) as error:
        words = f"{path}: is not an .npy file, write it with np.save"
        raise UserError(words) from error
    return shape, dtype


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
