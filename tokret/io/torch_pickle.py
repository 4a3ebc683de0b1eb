"""The pickle in a PyTorch file: which tensors are where in which storages.

It is read by `tokret.io.restricted_pickle`, to which this adds the few names that state
dicts need. Nothing here trusts the pickle: `tokret.io.tensor_views` compares each
tensor's claims with the bytes of the file.
"""

from collections.abc import Mapping
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
    printable,
)

# The dtype of each class of storages. Files are little-endian, or refused.
STORAGE_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Keys of the state dict in files that training programs save with other things.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "module")
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


@dataclass(frozen=True)
class Tensor:
    """A tensor by its pickle's claims: none of the four has been checked."""

    storage: object
    offset: object
    shape: object
    strides: object


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value from a pickle can be a number of elements."""
    return type(value) is int and 0 <= value < MAX_COUNT


class _OrderedDict(StandIn, dict[Any, Any]):
    """Replaces collections.OrderedDict, made empty or from pairs."""

    def __init__(self, pairs: object = ()) -> None:
        super().__init__()
        if not isinstance(pairs, list | tuple):
            raise RefusedError("an OrderedDict of something but pairs")
        for key, value in pairs:
            check_key(key)
            self[key] = value

    def __setstate__(self, state: object) -> None:
        """Drops the state: `_metadata`, the versions of the model's modules."""


_STAND_INS: dict[tuple[str, str], Any] = {
    **NUMPY_STAND_INS,
    ("collections", "OrderedDict"): _OrderedDict,
    ("torch._utils", "_rebuild_tensor"): lambda *facts: Tensor(*facts[:4]),
    ("torch._utils", "_rebuild_tensor_v2"): lambda *facts: Tensor(*facts[:4]),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "Size"): lambda sides=(): sides,
    ("torch", "device"): lambda *_: None,
} | {("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}


class _TorchUnpickler(RestrictedUnpickler):
    """Adds the names of PyTorch's state dicts, and collects the storages they use."""

    stand_ins = _STAND_INS

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def load_binpersid(self) -> None:
        self.spend(1)
        self.append(self._storage(self.stack.pop()))

    dispatch = RestrictedUnpickler.dispatch | {ord("Q"): load_binpersid}

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
                f"defines storage {printable(key)} in two ways; get the file again"
            )
        if rest in ([], [None]):
            return whole
        ((_, first, length),) = rest
        if not is_count(first) or not is_count(length) or first + length > total:
            raise FaultError(
                f"has a part outside storage {printable(key)}; get the file again"
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


def state_dict_of(top: object) -> tuple[Mapping[Any, Tensor], tuple[str, ...]]:
    """Extracts the state dict from a file's pickle: all of it, or one of `WRAPPERS`.

    Returns:
      The tensors by their names, and the names of the other things.

    Raises:
      FaultError: there is no state dict, there are two, or it holds other than tensors.
    """
    if not isinstance(top, dict):
        raise FaultError(
            f"holds {_kind(top)}; save a model's state_dict(), a dict of tensors"
        )
    found = [name for name in WRAPPERS if _has_tensors(top.get(name))]
    if len(found) > 1:
        raise FaultError(
            f"holds {len(found)} state dicts, {' and '.join(found)}; save the one you "
            "want alone"
        )
    if not found and not _has_tensors(top):
        raise FaultError(
            f"holds no tensors, only {_listed(top) or 'an empty dict'}; a state dict "
            f"is at the top or under one of {', '.join(WRAPPERS)}"
        )
    state = top[found[0]] if found else top
    strange = {n: value for n, value in state.items() if not isinstance(value, Tensor)}
    if strange:
        raise FaultError(
            f"its state dict holds other than tensors: {_listed(strange)}; save the "
            "tensors alone"
        )
    others = tuple(printable(str(name)) for name in top if name not in found)
    return state, others if found else ()


def _has_tensors(value: object) -> bool:
    values = value.values() if isinstance(value, dict) else ()
    return any(isinstance(entry, Tensor) for entry in values)


def _listed(entries: Mapping[Any, object]) -> str:
    """Entries in words, the first few of them."""
    words = [f"{printable(str(n))} ({_kind(entries[n])})" for n in list(entries)[:8]]
    more = len(entries) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _kind(value: object) -> str:
    names = {_OrderedDict: "dict", Tensor: "tensor"}
    return names.get(type(value), type(value).__name__)
