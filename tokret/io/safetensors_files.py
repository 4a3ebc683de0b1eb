"""Safetensors files, mapped; those that tokret writes have a digest of each tensor.

The format has no checksums: a flipped bit is another weight. The digests are CRC-32s
(the checksum of PyTorch's zip files), in the header's metadata: they are to notice
damage, at 2 GB/s on one core, and not changes by somebody, who could change them too.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tokret.io.atomic_files import replacing
from tokret.io.tensor_views import checked_shape
from tokret.io.torch_pickle import FaultError
from tokret.names import printable

DTYPES: dict[str, np.dtype] = {
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (8, 4, 2)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (8, 4, 2, 1)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (8, 4, 2, 1)},
    "C64": np.dtype("<c8"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 16 * 2**20  # bytes; a thousand tensors take 0.1 MB
MAX_TENSORS = 100_000
DIGESTS = "crc32"  # the metadata's entry: JSON, by the tensors' names
METADATA = "__metadata__"  # a name that no tensor has: the digest of the other entries


class SafetensorsFile(NamedTuple):
    """A safetensors file: views of its tensors, its metadata without the digests."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    verified: bool  # by its digests


def read(path: Path, raw: np.ndarray) -> SafetensorsFile:
    """Reads a file, and compares it with its digests if it has them.

    Args:
      path: the file; the library checks its header.
      raw: uint8 [n], the whole of it, mapped. Views of it have no bytes of their own.

    Raises:
      FaultError: it is truncated, malformed or damaged.
    """
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if length > MAX_HEADER:
        raise FaultError(f"its header has {length} bytes, no weights need so many")
    try:
        with safe_open(path, framework="numpy") as opened:
            names, metadata = opened.offset_keys(), opened.metadata() or {}
            if len(names) > MAX_TENSORS:
                raise FaultError(f"has {len(names)} tensors, no weights need so many")
            pieces = [opened.get_slice(name) for name in names]
            facts = [(piece.get_dtype(), tuple(piece.get_shape())) for piece in pieces]
    except SafetensorError as error:
        raise FaultError(
            f"truncated or malformed safetensors ({str(error)[:120]!r}); get it again"
        ) from error
    tensors = {}
    # The format has no gaps: in this order each begins where the last one ends.
    start = 8 + length
    for name, (word, shape) in zip(names, facts, strict=True):
        if word not in DTYPES:
            known = ", ".join(DTYPES)
            raise FaultError(
                f"tensor {printable(name, 80)} is {word}; save it as one of {known}"
            )
        dtype = DTYPES[word]
        shape = checked_shape(printable(name, 80), shape, dtype.itemsize)
        tensors[name] = np.ndarray(shape, dtype, raw, start)
        start += tensors[name].nbytes
    rest = {name: value for name, value in metadata.items() if name != DIGESTS}
    if DIGESTS in metadata:
        _verify(tensors, rest, metadata[DIGESTS])
    elif any(value.startswith(f'{{"{METADATA}": ') for value in rest.values()):
        raise FaultError("damaged in the name of its digests; get it again")
    return SafetensorsFile(tensors, rest, DIGESTS in metadata)


def write(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file with digests, whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    digests = json.dumps(_digests(contiguous, metadata))
    with replacing(path, errors=(SafetensorError,)) as draft:
        save_file(contiguous, draft, {**metadata, DIGESTS: digests})


def _verify(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], stored: str
) -> None:
    try:
        wanted = msgspec.json.decode(stored, type=dict[str, str])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FaultError("damaged in its digests; get it again") from error
    found = _digests(tensors, metadata)
    wrong = [n for n in {**found, **wanted} if found.get(n) != wanted.get(n)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise FaultError(
            f"damaged: {printable(wrong[0], 80)}{more} does not agree with its digest; "
            "get it again"
        )


def _digests(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Digests of contiguous tensors, their shapes and dtypes included."""
    entries = json.dumps(sorted(metadata.items())).encode()
    found = {METADATA: f"{zlib.crc32(entries):08x}"}
    for name, tensor in tensors.items():
        little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        start = zlib.crc32(f"{little.dtype.name} {tensor.shape}".encode())
        # Some dtypes of ml_dtypes have no buffers.
        data = little.reshape(-1).view(np.uint8)
        found[name] = f"{zlib.crc32(data.data, start):08x}"
    return found
