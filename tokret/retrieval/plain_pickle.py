"""Reads plain data from a pickle without running anything of it.

A pickle is a program, and a benchmark's ground truth comes as one from the internet.
Here it may build dicts, lists, strings, numbers and NumPy's arrays of numbers. The
names by which NumPy's own pickles rebuild an array lead to small stand-ins that give
lists: no import happens, and NumPy itself never sees the file's claims about sizes.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class RefusedError(Exception):
    """The pickle asked for something other than plain data."""


def load(data: bytes) -> Any:
    """The plain data in a pickle of any protocol, Python 2's included.

    Args:
      data: the whole pickle.

    Returns:
      Dicts, lists, tuples, strings (Python 2's byte strings as Latin-1), numbers;
      NumPy's arrays, of one dimension, as lists and its scalars as numbers.

    Raises:
      RefusedError: the pickle names anything else; nothing was run.
      Exception: of nearly any kind where the pickle is cut or malformed.
    """
    return _Reader(io.BytesIO(data), encoding="latin1").load()


class _DType:
    """Stands for numpy.dtype; keeps the code of a plain number such as "f8"."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biuf]\d\d?", code):
            raise RefusedError("an array of something other than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _NumberList(list[Any]):
    """Stands for numpy.ndarray: the list that the array's numbers make."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, _, data = state
        self[:] = _numbers(data, kind, shape)


def _numbers(data: Any, kind: _DType, shape: tuple[int, ...]) -> list[Any]:
    """The array's numbers; its size comes from the data, and the shape must agree."""
    raw = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
    # (1000000000, 0) fits no data at all, and would still make a list of that length.
    if len(shape) != 1:
        raise RefusedError("an array of other than one dimension")
    if shape[0] * kind.dtype.itemsize != len(raw):
        raise ValueError("an array's shape does not fit its data")
    return np.frombuffer(raw, kind.dtype).tolist()


def _reconstruct(*_: object) -> _NumberList:
    return _NumberList()


def _from_buffer(data: Any, kind: _DType, shape: tuple[int, ...], _: str) -> list[Any]:
    return _numbers(data, kind, shape)


def _scalar(kind: _DType, data: Any) -> Any:
    return _numbers(data, kind, (1,))[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, which pickles of protocols 0 to 2 spell bytes with."""
    if encoding != "latin1":
        raise RefusedError(f"the codec {encoding[:40]}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _NumberList,
    ("_codecs", "encode"): _latin1,
}
for _package in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_package}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_package}.numeric", "_frombuffer"] = _from_buffer


# The reader written in Python: the one in C sets aside memory for any memo index that
# the file claims. The type checker knows only the latter's attributes.
_PythonUnpickler: Any = pickle._Unpickler


class _Reader(_PythonUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise RefusedError(f"the global {module[:40]}.{name[:40]}")
        return stand_in

    def load_build(self) -> None:
        # Otherwise a state could be set on the stand-ins' own functions and classes.
        if not isinstance(self.stack[-2], _DType | _NumberList):
            raise RefusedError("a state set on something other than an array")
        super().load_build()

    dispatch = {**_PythonUnpickler.dispatch, pickle.BUILD[0]: load_build}
