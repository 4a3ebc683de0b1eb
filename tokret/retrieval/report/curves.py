"""Precision over recall, averaged over queries."""

from collections.abc import Sequence

import numpy as np

from tokret.shapes import Float, Int

POINTS = 101  # recalls from 0 to 1


def precision_recall(
    ranks: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, " r"] | None:
    """The mean interpolated precision of queries.

    A query's interpolated precision at a recall is the best precision at that recall or
    a higher one (Manning, Raghavan and Schuetze, "Introduction to Information
    Retrieval", section 8.4).

    Args:
      ranks: of each query's positives, from 0 and rising; queries without any are
        skipped.

    Returns:
      At recalls 0, 0.01 to 1, the precision; None if no query has a positive.
    """
    valid = [rank for rank in ranks if len(rank)]
    if not valid:
        return None
    total = np.zeros(POINTS)
    recall = np.linspace(0, 1, POINTS)
    for rank in valid:
        precision = np.arange(1, len(rank) + 1) / (rank + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        # The first positive by which the recall is reached; 1e-9 for 0.07 * 100.
        place = np.ceil(recall * len(rank) - 1e-9).astype(int) - 1
        total += best[np.maximum(place, 0)]
    return total / len(valid)
