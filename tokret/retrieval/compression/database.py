"""A compressed database: encoded, saved, read and prepared for a search.

    pq128   product codes of 128 bytes an image (any other number as well)
    int8    a byte a dimension, with a scale for each dimension
    bf16    two bytes a dimension

`tokret.retrieval.exact_search` searches `Compressed.codes` for the queries that
`Compressed.encode_queries` returns, on any device.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tokret.errors import UserError
from tokret.io.weight_files import (
    read_weights,
    require_digests,
    write_safetensors,
)
from tokret.retrieval.compression import int8, product
from tokret.retrieval.exact_search.blocks import (
    BLOCK,
    Database,
    MappedDatabase,
    aligned_empty,
    read_in_blocks,
)
from tokret.shapes import Float, Shaped

FORMAT = "tokret compressed descriptors 1"


@dataclass(frozen=True)
class Compressed:
    """A database of N images in fewer bytes."""

    codec: str  # "pq128", "int8", "bf16" or the like
    # [N, bytes] uint8 of product codes, [N, D] int8 or [N, D] bfloat16
    codes: Shaped[np.ndarray, "n b"]
    scale: Float[np.ndarray, " d"] | None = None  # [D] of int8, else None
    quantiser: product.ProductQuantiser | None = None  # of product codes, else None

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.codes.itemsize * self.codes.shape[1]

    @property
    def all_bytes(self) -> int:
        """Bytes of all images and of the scale or the centroids."""
        beside = 0 if self.scale is None else self.scale.nbytes
        if self.quantiser is not None:
            beside += self.quantiser.centroids.nbytes
        return self.codes.nbytes + beside

    def encode_queries(
        self, queries: Shaped[np.ndarray, "q d"]
    ) -> Shaped[np.ndarray, "q ..."]:
        """Converts [Q, D] queries to the kind that `codes` are searched with."""
        if self.quantiser is not None:
            return product.tables(self.quantiser, queries)
        if self.scale is not None:
            return int8.encode_queries(queries, self.scale)
        return np.asarray(queries, np.float32)


def check_codec(codec: str, dims: int | None = None) -> str:
    """Returns the codec if it exists.

    Raises:
      UserError: it is unknown, or has more bytes than the `dims` dimensions.
    """
    match = re.fullmatch(r"pq([1-9]\d{0,5})", codec)
    if match is None and codec not in ("int8", "bf16"):
        raise UserError(
            f"compression {codec!r} is unknown: pq128 (product codes of 128 bytes an "
            "image, or of any other number), int8, bf16"
        )
    if match and dims is not None and int(match[1]) > dims:
        raise UserError(
            f"{codec}: descriptors have {dims} dimensions, and product codes at most "
            f"as many bytes; pq{dims} is the largest"
        )
    return codec


def compress(database: Database, codec: str) -> Compressed:
    """Compresses a database [N, D], block by block; only the codes are held in memory.

    A row of NaN, an image without a descriptor, has no code: it becomes the opposite of
    the mean descriptor, which ranks behind nearly all others.

    Raises:
      UserError: the codec is unknown, or it needs faiss and that is missing.
    """
    check_codec(codec, database.shape[1])
    rows = _without_nan(database)
    if codec == "int8":
        scale = int8.fit_scale(rows)
        return Compressed(codec, int8.encode(rows, scale), scale=scale)
    if codec == "bf16":
        codes = aligned_empty(database.shape, ml_dtypes.bfloat16)
        for part, block in read_in_blocks(rows):
            codes[part] = block
        return Compressed(codec, codes)
    quantiser = product.train(training_sample(rows), int(codec[2:]))
    return Compressed(codec, product.encode(quantiser, rows), quantiser=quantiser)


def training_sample(database: Database) -> Float[np.ndarray, "n d"]:
    """Samples rows in 64 runs spread evenly, or all if they are few: [N, D] float32."""
    total, wanted = len(database), product.TRAINING_ROWS
    if total <= wanted:
        return np.asarray(database[0:total], np.float32)
    run = wanted // 64
    starts = np.linspace(0, total - run, 64).astype(int).tolist()
    return np.concatenate(
        [np.asarray(database[start : start + run], np.float32) for start in starts]
    )


def _without_nan(database: Database) -> MappedDatabase:
    """Replaces rows of NaN by the opposite of the first block's mean."""
    head = np.asarray(database[0:BLOCK], np.float32)
    known = head[~np.isnan(head[:, 0])]
    opposite = -known.mean(axis=0) if len(known) else np.float32(0)

    def replace(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        bad = np.isnan(rows).any(axis=1, keepdims=True)
        return np.where(bad, opposite, rows) if bad.any() else rows

    return MappedDatabase(database, replace, database.shape[1])


def save(compressed: Compressed, path: Path) -> None:
    """Writes a compressed database as safetensors, whole or not at all.

    Raises:
      UserError: the disk refuses.
    """
    tensors = {"codes": compressed.codes}
    if compressed.scale is not None:
        tensors["scale"] = compressed.scale
    metadata = {"format": FORMAT, "codec": compressed.codec}
    if compressed.quantiser is not None:
        tensors["centroids"] = compressed.quantiser.centroids
        metadata["dims"] = str(compressed.quantiser.dims)
    write_safetensors(path, tensors, metadata)


def read(path: Path) -> Compressed:
    """Reads a file of `save`; the codes stay on the disk until they are searched.

    Raises:
      UserError: the file is missing, cut, malformed, another, or contradicts itself.
    """
    file = read_weights(path)
    tensors, metadata = file.tensors, file.metadata
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a file of tokret's compressed descriptors")
    require_digests(path, file, "compress the descriptors again")
    try:
        return _checked(check_codec(metadata["codec"]), tensors, metadata)
    except (KeyError, ValueError, UserError) as error:
        raise UserError(
            f"{path}: damaged, compress the descriptors again ({error})"
        ) from error


def _checked(
    codec: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> Compressed:
    """Makes a database of a file's content, if that fits together."""
    codes = tensors["codes"]
    rows, width = codes.shape if codes.ndim == 2 else (0, 0)
    shapes: dict[str, tuple[Any, tuple[int, ...]]]
    if codec.startswith("pq"):
        dims, parts = int(metadata["dims"]), int(codec[2:])
        check_codec(codec, dims)
        centroids = (parts, product.CENTROIDS, -(-dims // parts))
        shapes = {
            "codes": (np.uint8, (rows, parts)),
            "centroids": (np.float32, centroids),
        }
    elif codec == "int8":
        shapes = {"codes": (np.int8, (rows, width)), "scale": (np.float32, (width,))}
    else:
        shapes = {"codes": (ml_dtypes.bfloat16, (rows, width))}
    for name, (dtype, shape) in shapes.items():
        array = tensors[name]
        if array.dtype != dtype or array.shape != shape or not array.size:
            raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
    loaded = {name: np.array(tensors[name]) for name in shapes if name != "codes"}
    for name, array in loaded.items():
        if not np.isfinite(array).all() or (name == "scale" and array.min() <= 0):
            raise ValueError(f"{name} are not finite, or not above 0")
    if codec.startswith("pq"):
        quantiser = product.ProductQuantiser(loaded["centroids"], dims)
        return Compressed(codec, codes, quantiser=quantiser)
    return Compressed(codec, codes, scale=loaded.get("scale"))
