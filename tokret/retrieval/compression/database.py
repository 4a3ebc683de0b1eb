"""A compressed database: encoded, saved, read and prepared for a search.

    pq128   product codes of 128 bytes an image (any other number as well)
    int8    a byte a dimension, with a scale for each dimension
    bf16    two bytes a dimension

`tokret.retrieval.exact_search` searches `Compressed.codes` for the queries that
`Compressed.encode_queries` returns, on any device.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from tokret.errors import UserError
from tokret.io.weight_files import read_weights, write_safetensors
from tokret.retrieval.compression import int8, product
from tokret.retrieval.exact_search.blocks import (
    BLOCK,
    Database,
    aligned_empty,
    read_in_blocks,
)
from tokret.shapes import Float, Shaped

FORMAT = "tokret compressed descriptors 1"


@dataclass(frozen=True)
class Compressed:
    """A database of N images in fewer bytes.

    Attributes:
      codec: "pq128", "int8", "bf16" or the like.
      codes: [N, bytes] uint8 of product codes, [N, D] int8 or [N, D] bfloat16.
      scale: [D] of int8, else None.
      quantiser: of product codes, else None.
    """

    codec: str
    codes: Shaped[np.ndarray, "n b"]
    scale: Float[np.ndarray, " d"] | None = None
    quantiser: product.ProductQuantiser | None = None

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

    Args:
      codec: from a user.
      dims: D, where it is known.

    Raises:
      UserError: it is unknown, or has more bytes than dimensions.
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
    """Compresses a database.

    A row of NaN, an image without a descriptor, has no code: it becomes the opposite of
    the mean descriptor, which ranks behind nearly all others.

    Args:
      database: [N, D], read block by block; only the codes are held in memory.
      codec: as of `Compressed`.

    Raises:
      UserError: the codec is unknown, or it needs faiss and that is missing.
    """
    check_codec(codec, database.shape[1])
    rows = _WithoutNan(database)
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
    """Samples rows of a database, in 64 runs spread evenly: [N, D] float32.

    Args:
      database: of any length; all of it where it is short.
    """
    total, wanted = len(database), product.TRAINING_ROWS
    if total <= wanted:
        return np.asarray(database[0:total], np.float32)
    run = wanted // 64
    starts = np.linspace(0, total - run, 64).astype(int).tolist()
    return np.concatenate(
        [np.asarray(database[start : start + run], np.float32) for start in starts]
    )


class _WithoutNan:
    """A database whose rows of NaN are replaced as they are read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.shape, self.dtype = database.shape, np.dtype(np.float32)
        head = np.asarray(database[0:BLOCK], np.float32)
        known = head[~np.isnan(head[:, 0])]
        self._instead = -known.mean(axis=0) if len(known) else 0.0

    def __len__(self) -> int:
        return len(self._database)

    def __getitem__(self, rows: slice, /) -> Float[np.ndarray, "n d"]:
        part = np.asarray(self._database[rows], np.float32)
        bad = np.isnan(part).any(axis=1)
        if bad.any():
            part = np.array(part)
            part[bad] = self._instead
        return part


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
    try:
        codec = check_codec(metadata["codec"])
        codes = tensors["codes"]
        if codec.startswith("pq"):
            dims = int(metadata["dims"])
            return _read_product(codec, codes, tensors["centroids"], dims)
        scale = tensors["scale"] if codec == "int8" else None
        return _read_plain(codec, codes, scale)
    except (KeyError, ValueError, UserError) as error:
        raise UserError(
            f"{path}: damaged, compress the descriptors again ({error})"
        ) from error


def _read_plain(codec: str, codes: np.ndarray, scale: np.ndarray | None) -> Compressed:
    wanted = np.dtype(np.int8 if codec == "int8" else ml_dtypes.bfloat16)
    _expect(codes, wanted, codes.ndim == 2 and codes.size > 0, "codes")
    if scale is not None:
        fits = scale.shape == codes.shape[1:]
        _expect(scale, np.dtype(np.float32), fits, "scale")
        scale = np.array(scale)
        # NaN fails, too.
        if not ((scale > 0) & (scale < np.inf)).all():
            raise ValueError("scale is not above 0")
    return Compressed(codec, codes, scale=scale)


def _read_product(
    codec: str, codes: np.ndarray, centroids: np.ndarray, dims: int
) -> Compressed:
    parts = int(codec[2:])
    right = codes.ndim == 2 and codes.size > 0 and codes.shape[1] == parts
    _expect(codes, np.dtype(np.uint8), right, "codes")
    check_codec(codec, dims)
    shape = (parts, product.CENTROIDS, -(-dims // parts))
    _expect(centroids, np.dtype(np.float32), centroids.shape == shape, "centroids")
    centroids = np.array(centroids)
    if not np.isfinite(centroids).all():
        raise ValueError("centroids are not finite")
    quantiser = product.ProductQuantiser(centroids, dims)
    return Compressed(codec, codes, quantiser=quantiser)


def _expect(array: np.ndarray, dtype: np.dtype, shape_fits: bool, name: str) -> None:
    if array.dtype != dtype or not shape_fits:
        raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
