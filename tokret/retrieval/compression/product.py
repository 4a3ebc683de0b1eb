"""Product quantisation: a descriptor is split into parts, each one of 256 centroids.

Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", PAMI 2011.
A query is not encoded: the products of its parts with all centroids fill a table, and a
score is a sum of entries (section III.B, asymmetric distance computation). faiss trains
and encodes; tables and scores need NumPy and JAX alone.
"""

import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from tokret.errors import UserError
from tokret.retrieval.exact_search.blocks import Database, aligned_empty, read_in_blocks
from tokret.shapes import Float, Shaped, UInt8

CENTROIDS = 256  # a byte
TRAINING_ROWS = 16384  # 64 for each centroid; more move them little


def import_faiss() -> ModuleType:
    """Returns the library.

    Raises:
      UserError: it is not installed.
    """
    try:
        # Its SWIG wrappers raise deprecation warnings in later Pythons.
        with warnings.catch_warnings(action="ignore"):
            import faiss
    except ImportError as error:
        raise UserError(
            "product quantisation is trained by faiss, which is missing: "
            "pip install faiss-cpu"
        ) from error
    module: ModuleType = faiss
    return module


@dataclass(frozen=True)
class ProductQuantiser:
    """Centroids of each part."""

    # [M, 256, S] float32: M parts, so M bytes an image. Where M does not divide D, some
    # parts have a dimension less, and a zero behind it
    centroids: Float[np.ndarray, "m 256 s"]
    dims: int


def train(sample: Shaped[np.ndarray, "n d"], parts: int) -> ProductQuantiser:
    """Trains the centroids by k-means on each of M `parts`, the bytes of an image.

    The sample is [N, D] descriptors like those to encode; `TRAINING_ROWS` are enough.

    Raises:
      ValueError: M is not in 1 to D.
      UserError: faiss is missing.
    """
    dims = sample.shape[1]
    if not 1 <= parts <= dims:
        raise ValueError(f"parts is {parts}, and must be in 1 to {dims}")
    faiss = import_faiss()
    cut = split_into_parts(np.asarray(sample, np.float32), parts)
    if len(cut) < CENTROIDS:  # then every row becomes a centroid
        cut = np.resize(cut, (CENTROIDS, cut.shape[1]))
    quantiser = faiss.ProductQuantizer(cut.shape[1], parts, 8)
    quantiser.cp.min_points_per_centroid = 1  # no warning
    if cut.shape[1] <= 2 * parts:
        # On a line or in a plane any training gives close centroids, and there are many
        # parts: thorough training would take ten minutes.
        quantiser.cp.niter, quantiser.cp.max_points_per_centroid = 10, 16
    quantiser.train(cut)
    centroids = faiss.vector_to_array(quantiser.centroids)
    return ProductQuantiser(centroids.reshape(parts, CENTROIDS, -1), dims)


def encode(quantiser: ProductQuantiser, database: Database) -> UInt8[np.ndarray, "n m"]:
    """Gives each part of each row the nearest centroid's number: codes [N, M].

    Raises:
      UserError: faiss is missing.
    """
    faiss = import_faiss()
    parts, _, width = quantiser.centroids.shape
    coder = faiss.ProductQuantizer(parts * width, parts, 8)
    faiss.copy_array_to_vector(quantiser.centroids.reshape(-1), coder.centroids)
    codes = aligned_empty((len(database), parts), np.uint8)
    for part, rows in read_in_blocks(database):
        codes[part] = coder.compute_codes(split_into_parts(rows, parts))
    return codes


def tables(
    quantiser: ProductQuantiser, queries: Shaped[np.ndarray, "q d"]
) -> Float[np.ndarray, "q m 256"]:
    """Each centroid's contribution, in each part, to the scores of queries [Q, D]."""
    parts = len(quantiser.centroids)
    cut = split_into_parts(np.asarray(queries, np.float32), parts)
    by_part = cut.reshape(len(cut), parts, -1).transpose(1, 0, 2)  # [m, q, s]
    products = by_part @ quantiser.centroids.transpose(0, 2, 1)  # [m, q, 256]
    return np.ascontiguousarray(products.transpose(1, 0, 2))


def split_into_parts(
    descriptors: Float[np.ndarray, "n d"], parts: int
) -> Float[np.ndarray, "n e"]:
    """Pads each of M parts to one length: [N, M * S]."""
    rows, dims = descriptors.shape
    if dims % parts == 0:
        return np.ascontiguousarray(descriptors)
    cut = np.zeros((rows, parts * -(-dims // parts)), np.float32)
    cut[:, columns_of(dims, parts)] = descriptors
    return cut


def columns_of(dims: int, parts: int) -> np.ndarray:
    """The column of each dimension among the parts, whose sizes differ by at most 1."""
    width = -(-dims // parts)
    pieces = np.array_split(np.arange(dims), parts)
    return np.concatenate(
        [part * width + np.arange(len(piece)) for part, piece in enumerate(pieces)]
    )
