"""int8 descriptors with one scale for each dimension.

The query is multiplied by the scale before it is rounded, too: a score is then an exact
int32 sum of products, the same on every device, in one unit for a query's whole
database.
"""

import numpy as np

from tokret.retrieval.exact_search.blocks import Database, aligned_empty, read_in_blocks
from tokret.shapes import Float, Shaped

LARGEST = 127  # not -128: both signs reach as far


def fit_scale(database: Database) -> Float[np.ndarray, " d"]:
    """The size of one step, above 0, in each dimension of a database: [D] float32."""
    largest = np.zeros(database.shape[1], np.float32)
    for _, rows in read_in_blocks(database):
        np.maximum(largest, np.abs(rows).max(axis=0), out=largest)
    # In a dimension of zeros any scale is right.
    return np.where(largest > 0, largest, LARGEST).astype(np.float32) / LARGEST


def encode(
    database: Database, scale: Float[np.ndarray, " d"]
) -> Shaped[np.ndarray, "n d"]:
    """Rounds a database, block by block, to [N, D] int8 by the scale of `fit_scale`."""
    codes = aligned_empty(database.shape, np.int8)
    for part, rows in read_in_blocks(database):
        codes[part] = encode_rows(rows, scale)
    return codes


def encode_rows(
    rows: Float[np.ndarray, "n d"], scale: Float[np.ndarray, " d"]
) -> Shaped[np.ndarray, "n d"]:
    """Rounds some rows to int8; what is beyond the scale's range is clipped."""
    return np.clip(np.rint(rows / scale), -LARGEST, LARGEST).astype(np.int8)


def encode_queries(
    queries: Shaped[np.ndarray, "q d"], scale: Float[np.ndarray, " d"]
) -> Shaped[np.ndarray, "q d"]:
    """Rounds queries [Q, D] to int8, for a search of descriptors of the same scale.

    Each query has a unit of its own, on which its ranking does not depend.
    """
    weighted = np.asarray(queries, np.float32) * scale
    return np.rint(weighted / query_units(queries, scale)).astype(np.int8)


def query_units(
    queries: Shaped[np.ndarray, "q d"], scale: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "q 1"]:
    """What a score of 1 by `encode_queries` is in dot products, of each query."""
    largest = np.abs(np.asarray(queries, np.float32) * scale).max(axis=1, keepdims=True)
    return np.where(largest > 0, largest, LARGEST) / np.float32(LARGEST)
