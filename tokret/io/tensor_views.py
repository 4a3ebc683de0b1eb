"""Arrays in a mapped file, made only if all their bytes are in it."""

import math
from collections.abc import Mapping

import numpy as np

from tokret.io.torch_pickle import FaultError, Storage, Tensor, is_count

MAX_NDIM = 32
# Tied and expanded tensors have bytes in common. Together they are at most this many
# times the file, since they may be copied: a stride of 0 makes any size from 4 bytes.
MAX_EXPANSION = 16


def views_of(
    tensors: Mapping[str, Tensor], starts: Mapping[str, int], raw: np.ndarray
) -> dict[str, np.ndarray]:
    """Makes the arrays of a state dict; none of their bytes is read.

    Args:
      tensors: by their names, with the claims of their pickle.
      starts: where in the file each storage begins.
      raw: uint8 [n], the whole file, mapped.

    Returns:
      Read-only views of `raw`, of each tensor's own shape, strides and dtype.

    Raises:
      FaultError: names the tensor that is not inside its storage.
    """
    left = MAX_EXPANSION * len(raw)
    arrays = {}
    for name, tensor in tensors.items():
        array = arrays[name] = _view(name, tensor, starts, raw)
        left -= array.nbytes
        if left < 0:
            raise FaultError(
                f"its tensors up to {name} have more than {MAX_EXPANSION} times the "
                "bytes of the file; save them contiguous"
            )
    return arrays


def _view(
    name: str, tensor: Tensor, starts: Mapping[str, int], raw: np.ndarray
) -> np.ndarray:
    storage, offset = tensor.storage, tensor.offset
    if not isinstance(storage, Storage) or not is_count(offset):
        raise FaultError(f"tensor {name} has no storage; get the file again")
    dtype = tensor.dtype or storage.dtype
    itemsize = dtype.itemsize
    shape = checked_shape(name, tensor.shape, itemsize)
    strides = checked_shape(name, tensor.strides, 0)
    if len(shape) != len(strides):
        raise FaultError(f"tensor {name} has invalid strides; get the file again")
    if 0 in shape:
        return np.ndarray(shape, dtype, raw)
    sides = zip(shape, strides, strict=True)
    last = offset + sum((side - 1) * step for side, step in sides)
    length = storage.length * storage.dtype.itemsize // itemsize
    if last >= length:
        raise FaultError(
            f"tensor {name} reaches to element {last} of a storage that has {length}; "
            "get the file again"
        )
    first = starts[storage.key] + storage.first * storage.dtype.itemsize
    steps = tuple(step * itemsize for step in strides)
    return np.ndarray(shape, dtype, raw, first + offset * itemsize, steps)


def checked_shape(name: str, shape: object, itemsize: int) -> tuple[int, ...]:
    """Returns a tensor's shape from a file, if NumPy accepts it, even of empty arrays.

    Raises:
      FaultError: it is no tuple of counts, or has too many bytes for any address.
    """
    if isinstance(shape, tuple) and len(shape) <= MAX_NDIM:
        counts = [side for side in shape if is_count(side)]
        bytes_ = itemsize * math.prod(max(side, 1) for side in counts)
        if len(counts) == len(shape) and bytes_ < 2**62:
            return shape
    raise FaultError(f"tensor {name} has an invalid shape; get the file again")
