import numpy as np

from tokret.data.views import View
from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.report_inputs import best_of, costs_of, shown_views
from tokret.retrieval.reranking.ranking import Ranking


def test_a_grey_photo_replaces_a_bad_one():
    views = [View(b"", f"{i}.jpg", None, 9) for i in range(4)]
    shown = shown_views(views, {2: "2.jpg is cut short"})
    assert [view.name for view in shown[1:3]] == ["1.jpg", "2.jpg is cut short"]
    assert (shown[2].pixels() == 128).all() and len(shown) == 4
    assert len(shown_views(views, {})) == 4


def test_the_best_of_some_queries():
    queries = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    database = np.array([[1, 0], [0, 2], [-3, 0]], np.float32)
    scores, items = best_of(Ranking(queries, database), [2, 1], 1)
    assert items.tolist() == [[2], [1]] and scores.tolist() == [[3], [2]]


def test_costs_count_what_was_extracted_now():
    rows = np.zeros((5, 4), np.float32)
    stored = DescriptorSet((), rows, {})
    fresh = DescriptorSet((), rows, {}, num_extracted=3, seconds=1.5)
    costs = costs_of({"query": fresh, "database": stored}, 0.25)
    assert (costs.num_extracted, costs.extraction_seconds) == (3, 1.5)
    assert (costs.dims, costs.item_bytes, costs.search_seconds) == (4, 16, 0.25)
