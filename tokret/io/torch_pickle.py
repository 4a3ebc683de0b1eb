"""The pickle in a PyTorch file: which tensors are where in which storages.

It is read by `tokret.io.restricted_pickle`, to which this adds the names that PyTorch's
own loader allows with `weights_only=True`. Nothing here trusts the pickle:
`tokret.io.tensor_views` compares each tensor's claims with the bytes of the file.
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from tokret.io.restricted_pickle import (
    NUMPY_STAND_INS,
    RefusedError,
    RestrictedUnpickler,
    StandIn,
    check_key,
)
from tokret.names import printable

# PyTorch's dtypes that NumPy has too, by their names. Files are little-endian, or
# refused.
DTYPES: dict[str, np.dtype] = {
    "bool": np.dtype("?"),
    **{f"int{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"uint{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"complex{8 * size}": np.dtype(f"<c{size}") for size in (8, 16)},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
}
# The dtype of each class of storages.
STORAGE_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": DTYPES["float32"],
    "DoubleStorage": DTYPES["float64"],
    "HalfStorage": DTYPES["float16"],
    "BFloat16Storage": DTYPES["bfloat16"],
    "LongStorage": DTYPES["int64"],
    "IntStorage": DTYPES["int32"],
    "ShortStorage": DTYPES["int16"],
    "CharStorage": DTYPES["int8"],
    "ByteStorage": DTYPES["uint8"],
    "BoolStorage": DTYPES["bool"],
    "ComplexFloatStorage": DTYPES["complex64"],
    "ComplexDoubleStorage": DTYPES["complex128"],
    # Of quantised tensors, which are not read: their bytes alone are known.
    "QInt8Storage": DTYPES["int8"],
    "QUInt8Storage": DTYPES["uint8"],
    "QInt32Storage": DTYPES["int32"],
}
# Objects of PyTorch that stand beside weights; they become their own names.
_NAMED = """
complex32 float4_e2m1fn_x2 bits8 bits16 bits1x8 bits2x4 bits4x2
int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7
qint8 qint32 quint8 quint2x4 quint4x2 per_tensor_affine per_tensor_symmetric
per_channel_affine per_channel_symmetric per_channel_affine_float_qparams
Tensor FloatTensor DoubleTensor HalfTensor BFloat16Tensor LongTensor IntTensor
ShortTensor CharTensor ByteTensor BoolTensor
""".split()
MAX_COUNT = 2**48  # elements; products of two and a dtype's size stay plain integers


class FaultError(Exception):
    """A file's fault, in words that follow its name."""


@dataclass(frozen=True)
class Storage:
    """A sequence of elements, of which tensors are views."""

    key: str  # its name in the file
    dtype: np.dtype
    total: int  # elements that the file holds under this key
    first: int  # the first of them that belongs to this storage
    length: int  # how many do; only files older than 2018 have parts of storages

    @property
    def nbytes(self) -> int:
        """Bytes of the whole storage in the file."""
        return self.total * self.dtype.itemsize


@dataclass(frozen=True)
class Tensor:
    """A tensor by its pickle's claims: none of them has been checked."""

    storage: object
    offset: object  # elements of `dtype`
    shape: object
    strides: object
    dtype: np.dtype | None = None  # None: the storage's


@dataclass(frozen=True)
class UnreadTensor:
    """A tensor that NumPy has no array for."""

    kind: str  # such as "sparse tensor"


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value from a pickle can be a number of elements."""
    return type(value) is int and 0 <= value < MAX_COUNT


class _Dict(StandIn, dict[Any, Any]):
    """Replaces collections.OrderedDict and Counter, made of pairs or a dict."""

    def __init__(self, content: object = ()) -> None:
        super().__init__()
        if not isinstance(content, list | tuple | dict):
            raise RefusedError("an OrderedDict of something but pairs")
        for key, value in content.items() if isinstance(content, dict) else content:
            check_key(key)
            self[key] = value

    def __setstate__(self, state: object) -> None:
        """Drops the state: `_metadata`, the versions of the model's modules."""


def _rebuild_tensor(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _requires_grad: object = None,
    _hooks: object = None,
    bits: object = None,
) -> Tensor | UnreadTensor:
    if bits:  # of a lazy conjugate or negative: the stored values are others
        return UnreadTensor("conjugate or negative view")
    return Tensor(storage, offset, shape, strides)


def _rebuild_typed_tensor(*facts: Any) -> Tensor | UnreadTensor:
    """Of bytes and a dtype: unsigned integers, 8-bit floating point."""
    *first, dtype = facts[:7]
    if not isinstance(dtype, np.dtype):
        return UnreadTensor(f"{printable(str(dtype), 80)} tensor")
    made = _rebuild_tensor(*first, *facts[7:])
    if isinstance(made, UnreadTensor):
        return made
    return Tensor(made.storage, made.offset, made.shape, made.strides, dtype)


def _unread(kind: str) -> Any:
    return lambda *_: UnreadTensor(kind)


_REBUILDERS: dict[tuple[str, str], Any] = {
    ("torch._utils", f"_rebuild_{name}"): function
    for name, function in {
        "tensor": _rebuild_tensor,
        "tensor_v2": _rebuild_tensor,
        "tensor_v3": _rebuild_typed_tensor,
        "parameter": lambda tensor, *_: tensor,
        "parameter_with_state": lambda tensor, *_: tensor,
        "device_tensor_from_cpu_tensor": lambda tensor, *_: tensor,
        "device_tensor_from_numpy": _unread("tensor of another device"),
        "qtensor": _unread("quantised tensor"),
        "sparse_tensor": _unread("sparse tensor"),
        "nested_tensor": _unread("nested tensor"),
        "meta_tensor_no_storage": _unread("tensor without values"),
        "wrapper_subclass": _unread("tensor of a class of its own"),
    }.items()
}


def _rebuild_from_type(
    function: object, _class: object, arguments: Any, _attributes: object = None
) -> Any:
    """Of a tensor with attributes, which are dropped."""
    if not any(function is known for known in _REBUILDERS.values()):
        raise RefusedError("a tensor made by something unknown")
    return function(*arguments)  # type: ignore[operator]


# Values, and functions that return them: `collections.OrderedDict` makes a `_Dict`.
_STAND_INS: dict[tuple[str, str], Any] = {
    **NUMPY_STAND_INS,
    **_REBUILDERS,
    ("collections", "OrderedDict"): _Dict,
    ("collections", "Counter"): _Dict,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): "torch.nn.Parameter",
    ("torch.storage", "UntypedStorage"): DTYPES["uint8"],
    ("torch", "Size"): lambda sides=(): sides,
    ("torch", "device"): lambda *_: None,
    ("torch.serialization", "_get_layout"): lambda name: name,
    **{("torch", name): f"torch.{name}" for name in _NAMED},
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    **{
        (module, name): dtype
        for name, dtype in STORAGE_DTYPES.items()
        for module in ("torch", "torch.cuda")
    },
    **{
        (module, name): make
        for module in ("builtins", "__builtin__")
        for name, make in {
            "set": lambda items=(): items,
            "complex": lambda *parts: parts,
            "bytearray": lambda data=b"", *_: data,
        }.items()
    },
}


class _TorchUnpickler(RestrictedUnpickler):
    """Adds the names of PyTorch's state dicts, and collects the storages they use."""

    stand_ins = _STAND_INS

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def load_binpersid(self) -> None:
        self.spend(1)
        self.append(self._storage(self.stack.pop()))

    def load_empty_set(self) -> None:
        self.spend(1)
        self.append([])

    dispatch = RestrictedUnpickler.dispatch | {
        ord("Q"): load_binpersid,
        0x8F: load_empty_set,
    }

    def _storage(self, pid: Any) -> Storage:
        """Returns the storage that a persistent id names.

        It is ("storage", class, key, device, total), and in the legacy format a sixth
        member: None, or (key of the part, first element, length of the part).
        """
        right = isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"
        if not right or not isinstance(pid[1], np.dtype):
            raise RefusedError("an object from outside that is no storage")
        _, dtype, key, _, total, *rest = pid
        if not isinstance(key, str) or not is_count(total):
            raise FaultError("names a storage of invalid size; get the file again")
        whole = Storage(key, dtype, total, 0, total)
        if self.storages.setdefault(key, whole) != whole:
            raise FaultError(
                f"defines storage {printable(key, 80)} in two ways; get the file again"
            )
        if rest in ([], [None]):
            return whole
        ((_, first, length),) = rest
        if not is_count(first) or not is_count(length) or first + length > total:
            raise FaultError(
                f"has a part outside storage {printable(key, 80)}; get the file again"
            )
        return Storage(key, dtype, total, first, length)


def read_pickle(file: Any) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle of a PyTorch file, from its start to its end.

    Returns:
      The pickle's content, its tensors as `Tensor`, and every storage by its key.

    Raises:
      FaultError: it is malformed, or needs more than weights may.
    """
    reader = _TorchUnpickler(file)
    try:
        return reader.load(), reader.storages
    except RefusedError as error:
        raise FaultError(
            f"its pickle needs {error}, which weights must not; nothing was run, take "
            "a file of the state_dict() alone, from a source that you trust"
        ) from error
    except FaultError:
        raise
    # A malformed pickle ends in nearly any exception: KeyError, EOFError, MemoryError.
    except Exception as error:
        raise FaultError(
            f"truncated or malformed ({type(error).__name__} in its pickle); get it "
            "again"
        ) from error
