"""Reads plain data from a pickle without running anything of it.

A pickle is a program, and ground truths and weights come as such from the internet.
Here it may build dicts, lists, strings, numbers and NumPy's arrays of numbers. The
names by which NumPy's own pickles rebuild an array lead to small stand-ins that give
lists: no import happens, and NumPy itself never sees the file's claims about sizes.
Instructions that are not admitted below do not exist, and the work that a pickle may
ask for is bounded, whatever its length.
"""

import io
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# A step is an instruction or an element that a stand-in is given. A million names take
# two million, and four million of the costliest instructions take 0.3 GB and 5 s.
MAX_STEPS = 4_000_000


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
    return Reader(io.BytesIO(data)).load()


def shown(text: str) -> str:
    """A name from a file, fit to stand in a line of an error: short and printable."""
    return ascii(text[:80])[1:-1]


class StandIn:
    """What a pickle may set a state on; all else in it has none."""

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


class _DType(StandIn):
    """Stands for numpy.dtype; keeps the code of a plain number such as "f8"."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biuf]\d\d?", code):
            raise RefusedError("an array of something other than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _NumberList(StandIn, list[Any]):
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
    if type(shape[0]) is not int or shape[0] * kind.dtype.itemsize != len(raw):
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
        raise RefusedError(f"the codec {shown(encoding)}")
    return text.encode("latin1")


NUMPY_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _NumberList,
    ("_codecs", "encode"): _latin1,
}
for _package in ("numpy.core", "numpy._core"):
    NUMPY_STAND_INS[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    NUMPY_STAND_INS[f"{_package}.multiarray", "scalar"] = _scalar
    NUMPY_STAND_INS[f"{_package}.numeric", "_frombuffer"] = _from_buffer


# The reader written in Python: the one in C sets aside memory for any memo index that
# the file claims. The type checker knows only the latter's attributes.
_PythonUnpickler: Any = pickle._Unpickler

# Left out: sets, buffers out of band, the registry of extensions (it hands out objects
# without asking for their names) and everything that makes instances of classes.
_ADMITTED = """
PROTO FRAME STOP MARK POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
MEMOIZE NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
SHORT_BINBYTES BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST
LIST APPEND APPENDS EMPTY_DICT GLOBAL STACK_GLOBAL
""".split()


def _counted(step: Callable[[Any], None]) -> Callable[[Any], None]:
    def counted(reader: Any) -> None:
        reader.spend(1)
        step(reader)

    return counted


def _refusal(instruction: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise RefusedError(f"the instruction {instruction}")

    return refuse


class Reader(_PythonUnpickler):
    """The unpickler behind `load`; a subclass may know further stand-ins.

    Args:
      file: where the pickle begins; it is left where the pickle ends.
    """

    stand_ins: Mapping[tuple[str, str], Any] = NUMPY_STAND_INS

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self._steps_left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Counts the work, and refuses a pickle that asks for more than is sane."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise RefusedError(f"more than {MAX_STEPS} steps of work")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; there is nothing else to be had."""
        stand_in = self.stand_ins.get((module, name))
        if stand_in is None:
            raise RefusedError(f"the global {shown(module)}.{shown(name)}")
        return stand_in

    def _load_inst(self) -> None:
        # Classes are not instantiated, but the refusal names the one it was about.
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.find_class(module, name)
        raise RefusedError("the instruction INST")

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        if not isinstance(arguments, tuple):
            raise RefusedError("a call without a tuple of arguments")
        self._spend_on(arguments)
        self.stack[-1] = self.stack[-1](*arguments)

    def _load_build(self) -> None:
        state = self.stack.pop()
        # Otherwise a state could be set on the stand-ins' own functions and classes.
        if not isinstance(self.stack[-1], StandIn):
            raise RefusedError("a state set on something that has none")
        if isinstance(state, tuple):
            self._spend_on(state)
        self.stack[-1].__setstate__(state)

    def _spend_on(self, values: tuple[Any, ...]) -> None:
        # What a stand-in is given once it can be given a million times, from the memo.
        sized = (str, bytes, bytearray, list, tuple, dict)
        self.spend(sum(len(value) for value in values if isinstance(value, sized)))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _load_setitems(self) -> None:
        self._put(self.pop_mark())

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError("an item set on something other than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_key(key)
            target[key] = value

    def _load_bytearray8(self) -> None:
        # The standard reader sets aside what the file claims before it reads.
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch = {
        ord(op.code): _counted(_PythonUnpickler.dispatch[ord(op.code)])
        if op.name in _ADMITTED
        else _refusal(op.name)
        for op in pickletools.opcodes
    } | {
        pickle.INST[0]: _load_inst,
        pickle.REDUCE[0]: _counted(_load_reduce),
        pickle.BUILD[0]: _counted(_load_build),
        pickle.SETITEM[0]: _counted(_load_setitem),
        pickle.SETITEMS[0]: _counted(_load_setitems),
        pickle.DICT[0]: _counted(_load_dict),
        pickle.BYTEARRAY8[0]: _counted(_load_bytearray8),
    }


def check_key(key: object) -> None:
    """Refuses a dict's key whose hash a pickle could make slow or endless.

    Tuples hash their members anew each time, doubled a hundred times they never end;
    nested deep enough they overflow the stack; integers of any size can all collide.
    """
    if isinstance(key, str | bytes) or (
        isinstance(key, int) and -(2**63) <= key < 2**63
    ):
        return
    raise RefusedError(f"a dict's key that is {type(key).__name__}")
