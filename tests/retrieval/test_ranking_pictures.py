import dataclasses
import io

import numpy as np
from PIL import Image

from tokret.data.ground_truth import from_revisited
from tokret.data.views import View
from tokret.retrieval import metrics
from tokret.retrieval.answers import Costs, by_ground_truth
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.exact_search.top_k import top_k
from tokret.retrieval.ranking_pictures import pick_queries, ranking_rows

TRUTH = from_revisited(
    {
        "imlist": list("abcd"),
        "qimlist": ["x", "y"],
        "gnd": [
            {"bbx": [0, 0, 4, 4], "easy": [0], "hard": [2], "junk": [1]},
            {"bbx": [1, 1, 3, 3], "easy": [3], "hard": [], "junk": []},
        ],
    },
    "t",
)


def test_queries_from_the_best_to_the_worst():
    precision = np.array([0.1, np.nan, 0.9, 0.5, 0.7])
    assert pick_queries(precision) == [2, 4, 3, 0]
    assert pick_queries(precision, 2) == [2, 0]
    assert pick_queries(np.array([np.nan])) == []


def test_the_median_stands_in_the_middle():
    picked = pick_queries(np.linspace(0, 1, 101))
    assert (picked[0], picked[len(picked) // 2], picked[-1]) == (100, 50, 0)


def test_rows_show_what_was_found():
    database = np.eye(4, dtype=np.float32)
    queries = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]], np.float32)

    def photo(i):
        buffer = io.BytesIO()
        Image.fromarray(np.full((6, 6, 3), i, np.uint8)).save(buffer, "PNG")
        return View(buffer.getvalue(), str(i), None, 6)

    ranks = count_ranks(queries, database, metrics.labelled_items(TRUTH))
    boxed = [
        dataclasses.replace(photo(i), box=tuple(box))
        for i, box in enumerate(TRUTH.boxes.tolist())
    ]
    answers = by_ground_truth(
        TRUTH,
        ranks,
        queries=boxed,
        database=[photo(i) for i in range(4)],
        best=lambda some, k: top_k(queries[list(some)], database, k),
        costs=Costs(0.0, 0, 0.1, 4, 16),
    )
    rows = ranking_rows(answers)
    # Without the junk before it, the second hit of the first query is its second.
    assert [row.caption for row in rows] == ["AP 100.0", "AP 100.0"]
    assert [r.verdict for r in rows[0].results] == ["hit", "junk", "hit", "miss"]
    assert [int(r.image[0, 0, 0]) for r in rows[1].results] == [3, 2, 1, 0]
    np.testing.assert_array_equal(rows[1].box, [1, 1, 3, 3])
