"""Which rankings to show, and what stands in them."""

from collections.abc import Callable

import numpy as np

from tokret.retrieval.ground_truth import GroundTruth
from tokret.retrieval.pictures import RESULTS, RankingRow, Result, Verdict
from tokret.retrieval.search import top_k
from tokret.shapes import Float, UInt8

Photos = Callable[[int], UInt8[np.ndarray, "h w 3"]]


def pick_queries(
    average_precision: Float[np.ndarray, " q"], count: int = 8
) -> list[int]:
    """Picks queries evenly from the best to the worst, those with positives only.

    Args:
      average_precision: of every query, NaN where it was left out.
      count: how many at most.
    """
    order = np.argsort(-average_precision, kind="stable")
    asked = order[~np.isnan(average_precision[order])]
    places = np.linspace(0, len(asked) - 1, min(count, len(asked))).round()
    return [int(asked[int(place)]) for place in places]


def verdict(truth: GroundTruth, query: int, item: int) -> Verdict:
    """Says what the ground truth's Medium protocol makes of a database item."""
    if item in truth.junk[query]:
        return "junk"
    right = item in truth.easy[query] or item in truth.hard[query]
    return "hit" if right else "miss"


def ranking_rows(
    descriptors: tuple[Float[np.ndarray, "q d"], Float[np.ndarray, "n d"]],
    truth: GroundTruth,
    average_precision: Float[np.ndarray, " q"],
    query_photo: Photos,
    database_photo: Photos,
) -> list[RankingRow]:
    """Searches for the picked queries and gathers what a picture of them needs.

    Args:
      descriptors: of the queries and of the database.
      truth: whose order the descriptors have.
      average_precision: of every query, NaN where it was left out.
      query_photo: index of a query -> its whole photo.
      database_photo: index of a database item -> its photo.
    """
    queries, database = descriptors
    picked = pick_queries(average_precision)
    count = min(RESULTS, len(database))
    scores, items = top_k(queries[picked], database, count)
    rows = []
    for place, query in enumerate(picked):
        found = [
            Result(
                database_photo(int(item)), verdict(truth, query, int(item)), float(s)
            )
            for item, s in zip(items[place], scores[place], strict=True)
        ]
        box = None if truth.boxes is None else truth.boxes[query]
        caption = f"AP {100 * average_precision[query]:.1f}"
        rows.append(RankingRow(query_photo(query), box, caption, found))
    return rows
