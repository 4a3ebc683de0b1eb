import numpy as np

from tokret.data.views import View
from tokret.evaluation.report_inputs import ShownViews, best_among, costs_of
from tokret.evaluation.systems import Described


def test_a_grey_photo_stands_for_a_bad_one():
    views = [View(b"", f"{i}.jpg", None, 9) for i in range(4)]
    shown = ShownViews(views, {2: "2.jpg is cut short"}, [3, 2, 0])
    assert [view.name for view in shown] == ["3.jpg", "2.jpg is cut short", "0.jpg"]
    assert (shown[1].pixels() == 128).all()
    assert [view.name for view in shown[:1]] == ["3.jpg"] and len(shown) == 3
    assert len(ShownViews(views, {})) == 4


def test_the_best_of_some_queries():
    asking = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    database = np.array([[1, 0], [0, 2], [-3, 0]], np.float32)
    scores, items = best_among(asking, database, [2, 1], 1)
    assert items.tolist() == [[2], [1]] and scores.tolist() == [[3], [2]]


def test_costs_count_what_was_described_now():
    rows = np.zeros((5, 4), np.float32)
    stored = Described((), rows, {})
    fresh = Described((), rows, {}, fresh=3, seconds=1.5)
    costs = costs_of({"query": fresh, "database": stored}, 0.25)
    assert (costs.num_extracted, costs.extraction_seconds) == (3, 1.5)
    assert (costs.dims, costs.item_bytes, costs.search_seconds) == (4, 16, 0.25)
