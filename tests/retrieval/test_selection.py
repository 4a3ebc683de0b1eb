import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval import selection


def among(scores, start, first, total, k, blocks=1):
    """The best of given scores: the identity asks for them."""
    queries = np.eye(len(scores), dtype=scores.dtype)
    rows = scores.shape[1] // blocks
    offsets = rows * np.arange(blocks)
    found = selection.add_blocks(
        None,
        queries,
        np.split(scores.T, blocks),
        start + offsets,
        np.maximum(first, start + offsets),
        total,
        k=k,
    )
    return np.asarray(found.scores), np.asarray(found.items)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 15, 16, 200]),
    dtype=st.sampled_from([np.float32, np.int8]),
    values=st.sampled_from([2, 50, 127]),
    blocks=st.sampled_from([1, 4]),
)
def test_steps_find_what_a_stable_sort_finds(seed, k, dtype, values, blocks):
    draw = np.random.default_rng(seed)
    scores = draw.integers(-values, values, (3, 1024)).astype(dtype)
    total = 5000 + 1000  # the last 24 are not there
    # So are the first 64, which an earlier block had.
    there = np.where(np.arange(1024) < 64, -np.inf, scores)[:, :1000]
    order = np.argsort(-there, axis=1, kind="stable")[:, :k]
    best, items = among(scores, 5000, 5064, total, k, blocks)
    np.testing.assert_array_equal(items, order + 5000)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_behind_what_there_is_comes_nothing(dtype):
    _, items = among(np.full((1, 128), 7, dtype), 0, 1, 3, 4)
    assert items.tolist() == [[1, 2, -1, -1]]


def test_lists_are_merged_in_the_order_of_scores_and_indices():
    scores = np.array([[5, 2, 0, 5, 5, 9]], np.float32)
    items = np.array([[8, 9, -1, 3, 40, 1]], np.int32)
    best, which = selection.merge_lists(scores, items, 4)
    assert which.tolist() == [[1, 3, 8, 40]]
    assert best.tolist() == [[9, 5, 5, 5]]
