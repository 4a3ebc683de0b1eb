"""Weight files: PyTorch's of both formats and safetensors, read without PyTorch.

Reading maps the file and returns views of it, so only what is used is ever loaded, and
nothing in the file is run. The first bytes of a file decide its format, not its name.
"""

import io
import mmap
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tokret.errors import UserError
from tokret.io import tensor_views, torch_files
from tokret.io.atomic_files import replacing
from tokret.io.torch_pickle import STORAGE_DTYPES, FaultError, state_dict_of
from tokret.names import is_valid_name

SAFETENSORS_DTYPES: dict[str, np.dtype] = {
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (8, 4, 2)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (8, 4, 2, 1)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (8, 4, 2, 1)},
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 16 * 2**20  # bytes; a thousand tensors take 0.1 MB
MAX_NAME = 500  # characters
# Added before every name by DistributedDataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")


class WeightFile(NamedTuple):
    """The weights in a file.

    Attributes:
      tensors: by their names, in the file's order: read-only views of the mapped file,
        of any strides and alignment; bfloat16 is `ml_dtypes.bfloat16`.
      kind: "PyTorch, zip", "PyTorch, legacy" or "safetensors".
      metadata: of a safetensors file's header.
      others: names of what is beside the state dict, such as an epoch, and not used.
    """

    tensors: dict[str, np.ndarray]
    kind: str
    metadata: dict[str, str]
    others: tuple[str, ...]


def read_weights(path: Path) -> WeightFile:
    """Reads the state dict in a file.

    Args:
      path: a PyTorch file (zip or legacy) or a safetensors file. A state dict may stand
        at the top or under one of `torch_pickle.WRAPPERS`. `PREFIXES` that all names
        have are removed.

    Returns:
      Views of its tensors; no byte of them is read yet.

    Raises:
      UserError: the file is missing, truncated, malformed, of another kind, needs to
        run code, or has not exactly one state dict.
    """
    try:
        if path.exists() and not path.is_file():
            raise FaultError("not a file; name the weight file itself")
        with io.FileIO(path) as file:
            return _read(path, file)
    except FaultError as fault:
        raise UserError(f"{path}: {fault}") from fault
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; name a weight file"
        ) from error


def _read(path: Path, file: io.FileIO) -> WeightFile:
    if os.fstat(file.fileno()).st_size == 0:
        raise FaultError("empty; get it again")
    # Never closed explicitly: the views keep it open.
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    raw = np.frombuffer(mapping, np.uint8)
    head = raw[:16].tobytes()
    # A header's length, as 8 bytes, and its opening brace.
    if head[4:9] == b"\0\0\0\0{":
        tensors, metadata = _safetensors(path, raw)
        return WeightFile(_renamed(tensors), "safetensors", metadata, ())
    if head.startswith(torch_files.ZIP_MAGIC):
        kind, opened = "PyTorch, zip", torch_files.open_zip(raw, file)
    elif head.startswith(b"\x80"):
        kind, opened = "PyTorch, legacy", torch_files.open_legacy(raw, file)
    else:
        raise FaultError(
            f"neither a PyTorch nor a safetensors file: it begins with {head!r}; get "
            "the weights themselves, not a web page or a pointer to them"
        )
    state, others = state_dict_of(opened.top)
    views = tensor_views.views_of(_renamed(state), opened.starts, raw)
    return WeightFile(views, kind, {}, others)


def _safetensors(
    path: Path, raw: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The library checks the header; views of our own read no bytes."""
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if length > MAX_HEADER:
        raise FaultError(f"its header has {length} bytes, no weights need so many")
    try:
        with safe_open(path, framework="numpy") as opened:
            names, metadata = opened.offset_keys(), opened.metadata() or {}
            pieces = [opened.get_slice(name) for name in names]
            facts = [(piece.get_dtype(), tuple(piece.get_shape())) for piece in pieces]
    except SafetensorError as error:
        raise FaultError(
            f"truncated or malformed safetensors ({str(error)[:120]!r}); get it again"
        ) from error
    _check_names(names)
    tensors = {}
    # The format has no gaps: in this order each begins where the last one ends.
    start = 8 + length
    for name, (word, shape) in zip(names, facts, strict=True):
        if word not in SAFETENSORS_DTYPES:
            known = ", ".join(SAFETENSORS_DTYPES)
            raise FaultError(f"tensor {name} is {word}; save it as one of {known}")
        dtype = SAFETENSORS_DTYPES[word]
        shape = tensor_views.checked_shape(name, shape, dtype.itemsize)
        tensors[name] = np.ndarray(shape, dtype, raw, start)
        start += tensors[name].nbytes
    return tensors, metadata


def _renamed(tensors: Mapping[Any, Any]) -> dict[str, Any]:
    """Checks the names and removes the prefixes that all of them have."""
    _check_names(tensors)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _renamed({n.removeprefix(prefix): t for n, t in tensors.items()})
    return dict(tensors)


def _check_names(names: Collection[object]) -> None:
    if not names:
        raise FaultError("holds no tensors; save a model's state_dict()")
    for name in names:
        if not isinstance(name, str):
            raise FaultError(f"a tensor's name is of type {type(name).__name__}")
        if len(name) > MAX_NAME or not is_valid_name(name):
            raise FaultError(
                f"a tensor's name is empty, odd or longer than {MAX_NAME} characters: "
                f"{ascii(name[:40])}; rename it where the file was written"
            )


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, atomically.

    Args:
      path: the file; an existing one is replaced.
      tensors: arrays of any shape and strides, by their names.
      metadata: for the header.

    Raises:
      UserError: it cannot be written, or the format lacks a name or a dtype.
    """
    _check_writable(path, tensors, SAFETENSORS_DTYPES.values())
    if "__metadata__" in tensors:
        raise UserError(f"{path}: no tensor can be called __metadata__, rename it")
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path, errors=(SafetensorError,)) as draft:
        save_file(contiguous, draft, dict(metadata))


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a PyTorch file of an OrderedDict of tensors, as `write_safetensors`.

    Raises:
      UserError: in addition, PyTorch is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: PyTorch files are written by PyTorch, which is missing: "
            "pip install 'tokret[torch]'"
        ) from error
    _check_writable(path, tensors, STORAGE_DTYPES.values())
    pairs = ((name, _torch_tensor(torch, array)) for name, array in tensors.items())
    state = OrderedDict(pairs)
    # PyTorch's writer reports a full disk as a RuntimeError.
    with replacing(path, errors=(RuntimeError,)) as draft, draft.open("wb") as file:
        torch.save(state, file)


def _torch_tensor(torch: Any, array: np.ndarray) -> Any:
    copy = array.astype(array.dtype.newbyteorder("="), order="C")
    if copy.dtype == ml_dtypes.bfloat16:
        # from_numpy lacks the dtype; the bits are the same.
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def _check_writable(
    path: Path, tensors: Mapping[str, np.ndarray], dtypes: Collection[np.dtype]
) -> None:
    if path.is_dir():
        raise UserError(f"{path}: cannot be written: it is a folder; name a file in it")
    try:
        _check_names(tensors)
        for name, array in tensors.items():
            if array.dtype.newbyteorder("<") not in dtypes:
                raise FaultError(
                    f"tensor {name} is {array.dtype}, which the format lacks; cast it"
                )
    except FaultError as fault:
        raise UserError(f"{path}: cannot be written: {fault}") from fault
