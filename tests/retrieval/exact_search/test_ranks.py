import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.exact_search.ranks import (
    count_by_comparing,
    count_by_sorting,
    labelled_scores,
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    start=st.sampled_from([0, 64, 128]),
    earlier=st.sampled_from([0, 7]),
    integers=st.booleans(),
)
def test_both_ways_count_like_a_loop(seed, start, earlier, integers):
    draw = np.random.default_rng(seed)
    dtype = np.int32 if integers else np.float32
    total = 150  # the block at 128 is cut
    database = draw.integers(-3, 4, (2, 192)).astype(dtype)
    labelled = draw.integers(-1, total, (2, 9)).astype(np.int32)
    own = np.take_along_axis(database, np.maximum(labelled, 0), axis=1)
    scores = np.ascontiguousarray(database[:, start : start + 64])
    if start == 128:
        scores[:, total - start :] = 9  # rows beyond the database would come first
    expected = np.zeros(labelled.shape, np.int32)
    for (query, place), item in np.ndenumerate(labelled):
        for index in range(start + earlier, min(start + 64, total)):
            score, mine = database[query, index], database[query, item]
            before = score > mine or (score == mine and index < item)
            expected[query, place] += before and item >= 0
    known = labelled >= 0
    for count in (count_by_comparing, count_by_sorting):
        found = np.asarray(count(scores, own, labelled, start, start + earlier, total))
        np.testing.assert_array_equal(found[known], expected[known])


def test_own_scores_are_read_from_the_block_that_holds_them():
    scores = np.arange(8, dtype=np.float32)[None]
    labelled = np.array([[9, 12, 3, -1]], np.int32)
    found = np.asarray(labelled_scores(scores, labelled, 8))
    assert found[0, :2].tolist() == [1.0, 4.0]


def test_scores_are_compared_in_their_own_precision():
    scores = np.array([[0.5, 0.5 + 1e-12, 0.5]])
    labelled = np.array([[0, 1, 2]])
    assert count_by_sorting(scores, scores, labelled, 0, 0, 3).tolist() == [[1, 0, 2]]
    assert np.unique(scores.astype(np.float32)).size == 1
