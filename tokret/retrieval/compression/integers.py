"""int8 descriptors with one scale for each dimension.

The scale is folded into the query before that, too, is rounded: a score is then an
int32 sum of products, exact and alike on every device, in one unit for a query's whole
database.
"""

import numpy as np

from tokret.retrieval.blocks import Database, in_place
from tokret.shapes import Float, Shaped

LARGEST = 127  # not -128: both signs reach as far
_BLOCK = 16384


def find_scale(database: Database) -> Float[np.ndarray, " d"]:
    """What one step of each dimension is worth: [D] float32, above 0.

    Args:
      database: [N, D], read block by block.
    """
    largest = np.zeros(database.shape[1], np.float32)
    for start in range(0, len(database), _BLOCK):
        rows = np.abs(np.asarray(database[start : start + _BLOCK], np.float32))
        np.maximum(largest, rows.max(axis=0), out=largest)
    # A dimension of zeros: any scale will do.
    return np.where(largest > 0, largest, LARGEST).astype(np.float32) / LARGEST


def encode(
    database: Database, scale: Float[np.ndarray, " d"]
) -> Shaped[np.ndarray, "n d"]:
    """Rounds descriptors to [N, D] int8.

    Args:
      database: [N, D], read block by block.
      scale: from `find_scale`.
    """
    codes = in_place(database.shape, np.int8)
    for start in range(0, len(database), _BLOCK):
        rows = np.asarray(database[start : start + _BLOCK], np.float32)
        steps = np.clip(np.rint(rows / scale), -LARGEST, LARGEST)
        codes[start : start + _BLOCK] = steps
    return codes


def ask(
    queries: Shaped[np.ndarray, "q d"], scale: Float[np.ndarray, " d"]
) -> Shaped[np.ndarray, "q d"]:
    """Queries to search int8 descriptors by: [Q, D] int8.

    Each query has a unit of its own, which its ranking does not depend on.

    Args:
      queries: [Q, D] descriptors.
      scale: from `find_scale`.
    """
    weighted = np.asarray(queries, np.float32) * scale
    largest = np.abs(weighted).max(axis=1, keepdims=True)
    unit = np.where(largest > 0, largest, LARGEST) / LARGEST
    return np.rint(weighted / unit).astype(np.int8)
