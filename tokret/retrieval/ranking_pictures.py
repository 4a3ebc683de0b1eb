"""Answers -> the rankings that a picture shows."""

import numpy as np

from tokret.data.decoding import decode_fast
from tokret.data.views import View
from tokret.retrieval.answers import Answers
from tokret.retrieval.pictures import RESULTS, RankingRow, Result
from tokret.shapes import Float, UInt8


def pick_queries(
    average_precision: Float[np.ndarray, " q"], count: int = 9
) -> list[int]:
    """Picks queries evenly from the best to the worst, those with positives only.

    Args:
      average_precision: of every query, NaN where it has no positives.
      count: how many at most.
    """
    order = np.argsort(-average_precision, kind="stable")
    valid = order[~np.isnan(average_precision[order])]
    places = np.linspace(0, len(valid) - 1, min(count, len(valid))).round()
    return valid[places.astype(int)].tolist()


def ranking_rows(answers: Answers) -> list[RankingRow]:
    """Gathers the rankings of a few queries.

    Args:
      answers: of a system on a benchmark.

    Returns:
      The best query, the worst, and others evenly between, the median among them.
    """
    picked = pick_queries(answers.precision)
    rows = []
    for query, ranking in zip(picked, answers.first(picked, RESULTS), strict=True):
        results = [Result(whole(r.view), r.verdict, r.score) for r in ranking]
        view = answers.queries[query]
        box = None if view.box is None else np.array(view.box, np.float64)
        caption = f"AP {100 * answers.precision[query]:.1f}"
        rows.append(RankingRow(whole(view), box, caption, results))
    return rows


def whole(view: View) -> UInt8[np.ndarray, "h w 3"]:
    """The whole photo of a view, in its own size."""
    return decode_fast(view.encoded, view.name)
