"""The page's charts: precision over recall, and coordinates of what they draw."""

from collections.abc import Mapping, Sequence

import numpy as np

from tokret.shapes import Float, Int

# The plot area of a chart, in the units of its viewBox (charts.html).
LEFT, TOP, WIDTH, HEIGHT = 40, 12, 386, 248
STEPS = 480  # places for marks on a strip, and for queries on a curve
RECALLS = 101  # recalls of a curve, from 0 to 1

Points = list[tuple[float, float]]


def precision_recall(
    ranks: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, " r"] | None:
    """The mean interpolated precision of queries at recalls 0, 0.01 to 1.

    A query's interpolated precision at a recall is the best precision at that recall or
    a higher one (Manning, Raghavan and Schuetze, "Introduction to Information
    Retrieval", section 8.4). `ranks` are of each query's positives, from 0 and rising;
    queries without any are skipped. None if no query has a positive.
    """
    valid = [rank for rank in ranks if len(rank)]
    if not valid:
        return None
    total = np.zeros(RECALLS)
    recall = np.linspace(0, 1, RECALLS)
    for rank in valid:
        precision = np.arange(1, len(rank) + 1) / (rank + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        # The first positive by which the recall is reached; 1e-9 for 0.07 * 100.
        place = np.ceil(recall * len(rank) - 1e-9).astype(int) - 1
        total += best[np.maximum(place, 0)]
    return total / len(valid)


def curve_points(
    values: Float[np.ndarray, " n"], across: Float[np.ndarray, " n"] | None = None
) -> Points:
    """The points of a line of fractions; even steps to the right without `across`."""
    x = LEFT + WIDTH * (np.linspace(0, 1, len(values)) if across is None else across)
    y = TOP + HEIGHT * (1 - values)
    return list(zip(x.round(1).tolist(), y.round(1).tolist(), strict=True))


def sorted_points(values: Float[np.ndarray, " q"]) -> Points:
    """The points of a line of steps, from the largest fraction to the smallest."""
    # A hundred thousand queries need no more places than a screen has.
    count = min(len(values), STEPS)
    chosen = np.linspace(0, len(values) - 1, count).round().astype(int)
    across = np.repeat(np.linspace(0, 1, count + 1), 2)[1:-1]
    return curve_points(np.repeat(-np.sort(-values)[chosen], 2), across)


def strip_ticks(items: int) -> list[tuple[str, int]]:
    """Places, in percent, and ranks of the ticks on a logarithmic strip of ranks."""
    end = np.log(max(items, 2))
    ticks = [10**power for power in range(13) if 10**power < 0.6 * items]
    return [(f"{2 + 94 * np.log(tick) / end:.2f}%", tick) for tick in [*ticks, items]]


def strip_marks(
    positives: Mapping[str, Int[np.ndarray, " _"]], items: int
) -> dict[str, list[int]]:
    """Places, 0 to STEPS, of a query's positives on the strip; ranks are from 0."""
    end = np.log(max(items, 2))
    # Thousands of positives fall onto a few hundred places.
    return {
        kind: np.unique((STEPS * np.log1p(ranks) / end).round().astype(int)).tolist()
        for kind, ranks in positives.items()
    }
