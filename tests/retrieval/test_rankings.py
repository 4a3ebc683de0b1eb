import numpy as np

from tokret.retrieval.ground_truth import from_revisited
from tokret.retrieval.rankings import pick_queries, ranking_rows

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


def test_rows_show_what_was_found():
    database = np.eye(4, dtype=np.float32)
    queries = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]], np.float32)

    def photo(i):
        return np.full((2, 2, 3), i, np.uint8)

    rows = ranking_rows((queries, database), TRUTH, np.array([0.5, 1.0]), photo, photo)
    assert [row.caption for row in rows] == ["AP 100.0", "AP 50.0"]
    assert [r.verdict for r in rows[1].results] == ["hit", "junk", "hit", "miss"]
    assert [int(r.image[0, 0, 0]) for r in rows[0].results] == [3, 2, 1, 0]
    np.testing.assert_array_equal(rows[0].box, [1, 1, 3, 3])
