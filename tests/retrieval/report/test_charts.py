import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.report.charts import RECALLS, precision_recall

FEW = settings(derandomize=True, deadline=None, max_examples=60)
RANKS = st.sets(st.integers(0, 60), min_size=1, max_size=12).map(
    lambda ranks: np.array(sorted(ranks))
)


def slowly(rank):
    """The definition: the best precision where the recall is as high or higher."""
    points = [
        ((i + 1) / len(rank), (i + 1) / (int(place) + 1))
        for i, place in enumerate(rank)
    ]
    return [
        max(p for recall, p in points if recall >= hundredth / 100 - 1e-12)
        for hundredth in range(RECALLS)
    ]


@FEW
@given(st.lists(RANKS, min_size=1, max_size=4))
def test_the_mean_of_interpolated_precisions(ranks):
    expected = np.mean([slowly(rank) for rank in ranks], axis=0)
    np.testing.assert_allclose(precision_recall(ranks), expected, atol=1e-12)


def test_queries_without_positives_are_skipped():
    none = np.array([], np.int32)
    assert precision_recall([none]) is None
    assert precision_recall([none, np.array([0, 1])]) == pytest.approx(np.ones(RECALLS))
