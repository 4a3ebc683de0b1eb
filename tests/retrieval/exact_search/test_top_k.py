import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.exact_search.top_k import add_blocks, merge_lists


def best_of(scores, start, first, total, k, blocks=1):
    """The best of given scores, which the identity's products are."""
    queries = np.eye(len(scores), dtype=scores.dtype)
    rows = scores.shape[1] // blocks
    offsets = rows * np.arange(blocks)
    found = add_blocks(
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
def test_steps_select_the_beginning_of_a_stable_sort(seed, k, dtype, values, blocks):
    draw = np.random.default_rng(seed)
    scores = draw.integers(-values, values, (3, 1024)).astype(dtype)
    total = 5000 + 1000  # the last 24 do not exist
    # The first 64 belong to an earlier block.
    existing = np.where(np.arange(1024) < 64, -np.inf, scores)[:, :1000]
    order = np.argsort(-existing, axis=1, kind="stable")[:, :k]
    best, items = best_of(scores, 5000, 5064, total, k, blocks)
    np.testing.assert_array_equal(items, order + 5000)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_missing_items_are_last(dtype):
    _, items = best_of(np.full((1, 128), 7, dtype), 0, 1, 3, 4)
    assert items.tolist() == [[1, 2, -1, -1]]


def test_lists_are_merged_in_the_order_of_scores_and_indices():
    scores = np.array([[5, 2, 0, 5, 5, 9]], np.float32)
    items = np.array([[8, 9, -1, 3, 40, 1]], np.int32)
    best, which = merge_lists(scores, items, 4)
    assert which.tolist() == [[1, 3, 8, 40]]
    assert best.tolist() == [[9, 5, 5, 5]]
