"""A compressed database: made, asked, saved and read.

    pq128   product codes of 128 bytes an image (any other number as well)
    int8    a byte a dimension, with a scale for each dimension
    bf16    two bytes a dimension

What comes of `Compressed.ask` is searched in `Compressed.codes` by
`tokret.retrieval.search`, on any device.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from tokret.errors import UserError
from tokret.io.weight_files import read_weights, write_safetensors
from tokret.retrieval.blocks import Database, in_place
from tokret.retrieval.compression import integers, product
from tokret.shapes import Float, Shaped

FORMAT = "tokret compressed descriptors 1"
_BLOCK = 16384


@dataclass(frozen=True)
class Compressed:
    """A database of N images in fewer bytes.

    Attributes:
      form: "pq128", "int8", "bf16" or the like.
      codes: [N, bytes] uint8 of product codes, [N, D] int8 or [N, D] bfloat16.
      scale: [D] of int8, else None.
      quantiser: of product codes, else None.
    """

    form: str
    codes: Shaped[np.ndarray, "n b"]
    scale: Float[np.ndarray, " d"] | None = None
    quantiser: product.ProductQuantiser | None = None

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.codes.itemsize * self.codes.shape[1]

    @property
    def all_bytes(self) -> int:
        """Bytes of all images and of what is needed beside them."""
        beside = 0 if self.scale is None else self.scale.nbytes
        if self.quantiser is not None:
            beside += self.quantiser.centroids.nbytes
        return self.codes.nbytes + beside

    def ask(self, queries: Shaped[np.ndarray, "q d"]) -> Shaped[np.ndarray, "q ..."]:
        """Brings [Q, D] queries into the form that `codes` are searched by."""
        if self.quantiser is not None:
            return product.tables(self.quantiser, queries)
        if self.scale is not None:
            return integers.ask(queries, self.scale)
        return np.asarray(queries, np.float32)


def check_form(form: str, dims: int | None = None) -> str:
    """Returns the form if there is such a one.

    Args:
      form: from a user.
      dims: D, where it is known.

    Raises:
      UserError: there is none, or it has more bytes than dimensions.
    """
    match = re.fullmatch(r"pq([1-9]\d{0,5})", form)
    if match is None and form not in ("int8", "bf16"):
        raise UserError(
            f"compression {form!r} is not known: pq128 (product codes of 128 bytes an "
            "image, or of any other number), int8, bf16"
        )
    if match and dims is not None and int(match[1]) > dims:
        raise UserError(
            f"{form}: descriptors have {dims} dimensions, product codes at most as "
            f"many bytes; pq{dims} is the largest"
        )
    return form


def compress(database: Database, form: str) -> Compressed:
    """Compresses a database.

    A row of NaN, an image that could not be described, has no code: it becomes the
    opposite of the mean descriptor, which queries find behind nearly all others.

    Args:
      database: [N, D], read block by block; codes alone are held in memory.
      form: as of `Compressed`.

    Raises:
      UserError: there is no such form, or it needs faiss and that is missing.
    """
    check_form(form, database.shape[1])
    rows = _WithoutNan(database)
    if form == "int8":
        scale = integers.find_scale(rows)
        return Compressed(form, integers.encode(rows, scale), scale=scale)
    if form == "bf16":
        codes = in_place(database.shape, ml_dtypes.bfloat16)
        for start in range(0, len(codes), _BLOCK):
            codes[start : start + _BLOCK] = rows[start : start + _BLOCK]
        return Compressed(form, codes)
    quantiser = product.train(training_sample(rows), int(form[2:]))
    return Compressed(form, product.encode(quantiser, rows), quantiser=quantiser)


def training_sample(database: Database) -> Float[np.ndarray, "n d"]:
    """Database of a database, in 64 runs spread evenly: [N, D] float32.

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
        head = np.asarray(database[0:_BLOCK], np.float32)
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
    metadata = {"format": FORMAT, "form": compressed.form}
    if compressed.quantiser is not None:
        tensors["centroids"] = compressed.quantiser.centroids
        metadata["dims"] = str(compressed.quantiser.dims)
    write_safetensors(path, tensors, metadata)


def read(path: Path) -> Compressed:
    """Reads what `save` wrote; the codes stay on the disk until they are searched.

    Raises:
      UserError: the file is missing, cut, malformed, another, or contradicts itself.
    """
    file = read_weights(path)
    tensors, said = file.tensors, file.metadata
    if said.get("format") != FORMAT:
        raise UserError(f"{path}: holds no compressed descriptors of tokret's")
    try:
        form = check_form(said["form"])
        codes = tensors["codes"]
        if form.startswith("pq"):
            return _read_product(form, codes, tensors["centroids"], int(said["dims"]))
        scale = tensors["scale"] if form == "int8" else None
        return _read_plain(form, codes, scale)
    except (KeyError, ValueError, UserError) as error:
        raise UserError(
            f"{path}: damaged, compress the descriptors again ({error})"
        ) from error


def _read_plain(form: str, codes: np.ndarray, scale: np.ndarray | None) -> Compressed:
    wanted = np.dtype(np.int8 if form == "int8" else ml_dtypes.bfloat16)
    _expect(codes, wanted, codes.ndim == 2 and codes.size > 0, "codes")
    if scale is not None:
        fits = scale.shape == codes.shape[1:]
        _expect(scale, np.dtype(np.float32), fits, "scale")
        scale = np.array(scale)
        # NaN fails, too.
        if not ((scale > 0) & (scale < np.inf)).all():
            raise ValueError("scale is not above 0")
    return Compressed(form, codes, scale=scale)


def _read_product(
    form: str, codes: np.ndarray, centroids: np.ndarray, dims: int
) -> Compressed:
    parts = int(form[2:])
    right = codes.ndim == 2 and codes.size > 0 and codes.shape[1] == parts
    _expect(codes, np.dtype(np.uint8), right, "codes")
    check_form(form, dims)
    shape = (parts, product.CENTROIDS, -(-dims // parts))
    _expect(centroids, np.dtype(np.float32), centroids.shape == shape, "centroids")
    centroids = np.array(centroids)
    if not np.isfinite(centroids).all():
        raise ValueError("centroids are not finite")
    quantiser = product.ProductQuantiser(centroids, dims)
    return Compressed(form, codes, quantiser=quantiser)


def _expect(array: np.ndarray, dtype: np.dtype, shape_fits: bool, name: str) -> None:
    if array.dtype != dtype or not shape_fits:
        raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
