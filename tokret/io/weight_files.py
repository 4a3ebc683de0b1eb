"""Weight files: PyTorch's of both formats and safetensors, read without PyTorch.

Reading maps the file and returns views of it, so nothing in it is copied, and nothing
is run. Files with checksums are compared with them, which reads all of their bytes
once. The first bytes of a file decide its format, not its name.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.io import safetensors_files, tensor_views, torch_files
from tokret.io.atomic_files import replacing
from tokret.io.regular_files import open_file
from tokret.io.state_dicts import Chosen, StateError, choose_state, without_count
from tokret.io.torch_pickle import DTYPES, FaultError
from tokret.names import first_names, is_valid_name

KINDS = ("PyTorch, zip", "PyTorch, legacy", "safetensors")
MAX_NAME = 500  # characters
# Added before every name by DistributedDataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")


class WeightFile(NamedTuple):
    """The weights in a file.

    Attributes:
      tensors: by their names, in the file's order: read-only views of the mapped file,
        of any strides and alignment; bfloat16 is `ml_dtypes.bfloat16`.
      kind: one of `KINDS`.
      metadata: of a safetensors file's header.
      others: names of what is beside the state dict, such as an epoch, and not used.
      state: the state dict's place in the file; "" for the whole file.
      alternatives: places of the file's other dicts of tensors.
      verified: whether the file has checksums, with which all that is used agrees.
    """

    tensors: dict[str, np.ndarray]
    kind: str
    metadata: dict[str, str]
    others: tuple[str, ...]
    state: str
    alternatives: tuple[str, ...]
    verified: bool


class OpenedFile(NamedTuple):
    """A weight file with all that it contains.

    Attributes:
      kind, metadata, verified: as of `WeightFile`.
      top: the content: of PyTorch anything, with `torch_pickle.Tensor`; of safetensors
        a dict of arrays.
      starts: where the storages of PyTorch's tensors begin.
      raw: uint8 [n], the file, mapped.
    """

    kind: str
    top: object
    starts: dict[str, int]
    raw: np.ndarray
    metadata: dict[str, str]
    verified: bool


def read_weights(path: Path, state: str | None = None) -> WeightFile:
    """Reads a state dict in a file.

    Args:
      path: a PyTorch file (zip or legacy) or a safetensors file. `PREFIXES` that all
        names have are removed.
      state: a state dict's place in the file, or a prefix of names, or both joined by
        a dot. Only tensors of such names are taken, without the prefix. None: see
        `state_dicts.choose_state`.

    Raises:
      UserError: the file is missing, truncated, malformed, damaged, of another kind,
        needs to run code, or has no such state dict.
    """
    try:
        opened = open_weights(path)
        if opened.kind == "safetensors":
            whole: Any = opened.top
            chosen = without_count(Chosen(whole, "", (), ()))
        else:
            chosen = choose_state(opened.top, state)
        prefix = f"{state or ''}.".removeprefix(f"{chosen.name}.").strip(".")
        if state and prefix:
            chosen = _below(prefix, chosen)
        tensors = _without_prefixes(chosen.tensors)
        if opened.kind != "safetensors":
            tensors = tensor_views.views_of(tensors, opened.starts, opened.raw)
    except StateError as error:
        raise UserError(f"state: {path} {error}") from error
    except FaultError as fault:
        raise UserError(f"{path}: {fault}") from fault
    return WeightFile(
        tensors,
        opened.kind,
        opened.metadata,
        chosen.others,
        chosen.name,
        chosen.alternatives,
        opened.verified,
    )


def open_weights(path: Path) -> OpenedFile:
    """Opens a weight file of any of the formats, and verifies it.

    Raises:
      UserError: it is missing, or no regular file.
      FaultError: as `read_weights`, of any content.
    """
    with open_file(path) as file:
        try:
            return _open(path, file)
        except OSError as error:
            raise FaultError(f"cannot be read: {error.strerror}") from error


def _open(path: Path, file: BinaryIO) -> OpenedFile:
    if os.fstat(file.fileno()).st_size == 0:
        raise FaultError("empty; get it again")
    # Never closed explicitly: the views keep it open.
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    raw = np.frombuffer(mapping, np.uint8)
    head = raw[:16].tobytes()
    # A header's length, as 8 bytes, and its opening brace.
    if head[4:9] == b"\0\0\0\0{":
        read = safetensors_files.read(path, raw)
        return OpenedFile(
            "safetensors", read.tensors, {}, raw, read.metadata, read.verified
        )
    if head.startswith(torch_files.ZIP_MAGIC):
        kind, opened = "PyTorch, zip", torch_files.open_zip(raw, file)
    elif head.startswith(b"\x80"):
        kind, opened = "PyTorch, legacy", torch_files.open_legacy(raw, file)
    else:
        raise FaultError(
            f"neither a PyTorch nor a safetensors file: it begins with {head!r}; get "
            "the weights themselves, not a web page or a pointer to them"
        )
    return OpenedFile(kind, opened.top, opened.starts, raw, {}, opened.verified)


def require_digests(path: Path, file: WeightFile, remedy: str) -> None:
    """Refuses a file that tokret wrote if its digests are gone.

    Raises:
      UserError: naming the file and the remedy, such as "learn it again".
    """
    if not file.verified:
        raise UserError(
            f"{path}: damaged, or changed by another program: it has no digests; "
            f"{remedy}"
        )


def _below(start: str, chosen: Chosen) -> Chosen:
    """Chooses among the tensors those whose names start with a prefix and a dot."""
    tensors = _without_prefixes(chosen.tensors)
    prefix = f"{start}."
    taken = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not taken:
        there = chosen.alternatives + ((chosen.name,) if chosen.name else ())
        first = {name.partition(".")[0]: None for name in tensors if "." in name}
        raise StateError(
            f"has no dict {start!r} and no tensor below {prefix}; it has "
            f"{first_names((*there, *first)) or 'no dicts'}"
        )
    rest = tuple(name for name in tensors if not name.startswith(prefix))
    return chosen._replace(tensors=taken, others=(*chosen.others, *rest))


def _without_prefixes(tensors: Mapping[Any, Any]) -> dict[str, Any]:
    """Checks the names and removes the prefixes that all of them have."""
    _check_names(tensors)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _without_prefixes(
                {n.removeprefix(prefix): t for n, t in tensors.items()}
            )
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
    """Writes a safetensors file with digests, atomically.

    Args:
      path: the file; an existing one is replaced.
      tensors: arrays of any shape and strides, by their names.
      metadata: for the header.

    Raises:
      UserError: it cannot be written, or the format lacks a name or a dtype.
    """
    _check_writable(path, tensors, safetensors_files.DTYPES.values())
    if safetensors_files.METADATA in tensors:
        raise UserError(f"{path}: no tensor can be called __metadata__, rename it")
    safetensors_files.write(path, tensors, metadata)


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
            "pip install torch"
        ) from error
    _check_writable(path, tensors, DTYPES.values())
    pairs = ((name, _torch_tensor(torch, array)) for name, array in tensors.items())
    state = OrderedDict(pairs)
    # PyTorch's writer reports a full disk as a RuntimeError.
    with replacing(path, errors=(RuntimeError,)) as draft, draft.open("wb") as file:
        torch.save(state, file)


def _torch_tensor(torch: Any, array: np.ndarray) -> Any:
    copy = array.astype(array.dtype.newbyteorder("="), order="C")
    if copy.dtype.isbuiltin == 2:  # registered by ml_dtypes; from_numpy lacks it
        bits = copy.view(f"i{copy.dtype.itemsize}")
        return torch.from_numpy(bits).view(getattr(torch, copy.dtype.name))
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
