"""Reads plain data from a pickle without running any of its code.

A pickle is a program, and ground truths and weights from the internet are pickles.
Here it may build dicts, lists, strings, numbers and NumPy's arrays of numbers, strings
or such objects. The names with which NumPy's own pickles rebuild an array are replaced
by small stand-ins that return lists: nothing is imported, and NumPy never sees the
file's claims about sizes. All instructions that are not allowed below are refused, and
the work of a pickle is bounded, whatever its length.
"""

import io
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tokret.names import printable

# A step is an instruction, or an element of a stand-in's argument. A million names take
# two million, and four million of the costliest instructions take 0.3 GB and 5 s.
MAX_STEPS = 4_000_000
STEP_BYTES = 64  # of a string or an array's data: a step, however wide an element is


class RefusedError(Exception):
    """The pickle needs something other than plain data."""


def load(data: bytes) -> Any:
    """Returns the plain data in a pickle of any protocol, Python 2's included.

    Returns:
      Dicts, lists, tuples, strings (Python 2's byte strings as Latin-1), numbers;
      NumPy's arrays, of one dimension, as lists and its scalars as numbers or strings
      (those of bytes as Latin-1 too).

    Raises:
      RefusedError: the pickle names anything else; nothing was run.
      Exception: of nearly any kind if the pickle is truncated or malformed.
    """
    return RestrictedUnpickler(io.BytesIO(data)).load()


class StandIn:
    """An object on which a pickle may set a state; no other object has one."""

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


class _DType(StandIn):
    """Replaces numpy.dtype; keeps a code such as "f8", "U12", "S12" or "O8"."""

    def __init__(self, code: str, *_: object) -> None:
        known = r"[biuf]\d\d?|[US]\d{1,6}|O8"
        if not isinstance(code, str) or not re.fullmatch(known, code):
            raise RefusedError("an array of other than numbers, strings and objects")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _ArrayList(StandIn, list[Any]):
    """Replaces numpy.ndarray: a list of the array's elements."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, _, data = state
        self[:] = _elements(data, kind, shape)


def _elements(data: Any, kind: _DType, shape: tuple[int, ...]) -> list[Any]:
    """Returns an array's elements; their count is the data's; the shape must match."""
    # (1000000000, 0) needs no data at all, and would still make a list of that length.
    if len(shape) != 1:
        raise RefusedError("an array of other than one dimension")
    code = kind.dtype.kind
    if code == "O":  # the pickle has built the objects themselves
        found = data
    else:
        raw = data.encode("latin1") if isinstance(data, str) else memoryview(data)
        found = np.frombuffer(raw, kind.dtype).tolist()
    if type(found) is not list or type(shape[0]) is not int or shape[0] != len(found):
        raise ValueError("an array's shape does not fit its data")
    return [item.decode("latin1") for item in found] if code == "S" else found


def _scalar(kind: _DType, data: Any) -> Any:
    if kind.dtype.itemsize == 0:
        return ""
    return _elements(data, kind, (1,))[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Replaces _codecs.encode, with which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise RefusedError(f"the codec {printable(encoding, 80)}")
    return text.encode("latin1")


NUMPY_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _ArrayList,
    ("_codecs", "encode"): _latin1,
    # Protocols 0 to 2 write no bytes at all, such as an empty array's, as a call.
    ("__builtin__", "bytes"): lambda: b"",
}
for _package in ("numpy.core", "numpy._core"):
    NUMPY_STAND_INS |= {
        (f"{_package}.multiarray", "_reconstruct"): lambda *_: _ArrayList(),
        (f"{_package}.multiarray", "scalar"): _scalar,
        (f"{_package}.numeric", "_frombuffer"): lambda d, k, s, _: _elements(d, k, s),
    }


# The unpickler written in Python, a private name of the standard library (checked with
# Python 3.11 to 3.13): the one in C allocates memory for any memo index that the file
# claims, and has no table of instructions.
_PythonUnpickler: Any = pickle._Unpickler

# Not allowed: sets, out-of-band buffers, the extension registry (it returns objects
# without looking up their names) and all that makes instances of classes.
_ALLOWED = """
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


class RestrictedUnpickler(_PythonUnpickler):
    """The unpickler of `load`; a subclass may have further stand-ins."""

    stand_ins: Mapping[tuple[str, str], Any] = NUMPY_STAND_INS

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self._steps_left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Counts the work, and refuses a pickle that needs too much."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise RefusedError(f"more than {MAX_STEPS} steps of work")

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a name; nothing else can be looked up."""
        stand_in = self.stand_ins.get((module, name))
        if stand_in is None:
            raise RefusedError(f"the global {printable(f'{module}.{name}', 80)}")
        return stand_in

    def _load_inst(self) -> None:
        # No class is instantiated, but the error names the one that was wanted.
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
        # Otherwise a state could be set on the stand-ins' functions and classes.
        if not isinstance(self.stack[-1], StandIn):
            raise RefusedError("a state set on something that has none")
        if isinstance(state, tuple):
            self._spend_on(state)
        self.stack[-1].__setstate__(state)

    def _spend_on(self, values: tuple[Any, ...]) -> None:
        # An argument can be passed a million times, from the memo.
        sizes = [v.dtype.itemsize for v in values if isinstance(v, _DType)]
        step = max(1, min([STEP_BYTES, *sizes]))
        for value in values:
            if isinstance(value, str | bytes | bytearray):
                self.spend(len(value) // step)
            elif isinstance(value, list | tuple | dict):
                self.spend(len(value))

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
        # The standard one allocates what the file claims before it reads.
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch = {
        ord(op.code): _counted(_PythonUnpickler.dispatch[ord(op.code)])
        if op.name in _ALLOWED
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

    Tuples hash their members again each time: doubled a hundred times that never ends,
    and nested deep enough it overflows the stack; large integers can all collide.
    """
    small = isinstance(key, int) and -(2**63) <= key < 2**63
    if not small and not isinstance(key, str | bytes):
        raise RefusedError(f"a dict's key that is {type(key).__name__}")
