import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval import search

FEW = settings(derandomize=True, deadline=None, max_examples=25)


def sorted_ranks(scores, labelled):
    """The obvious form: a stable sort, then each item's place in it."""
    ranks = np.full(labelled.shape, -1)
    for query, row in enumerate(scores):
        order = list(np.argsort(-row, kind="stable"))
        for column, item in enumerate(labelled[query]):
            if item >= 0:
                ranks[query, column] = order.index(item)
    return ranks


def tied_case(seed, q=3, n=300, d=4, labels=6):
    """Descriptors of small integers: exact products, and ties everywhere."""
    draw = np.random.default_rng(seed)
    queries = draw.integers(-1, 2, (q, d)).astype(np.float32)
    database = draw.integers(-1, 2, (n, d)).astype(np.float32)
    labelled = draw.integers(-1, n, (q, labels)).astype(np.int32)
    return queries, database, labelled


@FEW
@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 128, 129, 300, 8192]))
def test_counted_ranks_are_places_in_a_stable_sort(seed, block):
    queries, database, labelled = tied_case(seed)
    expected = sorted_ranks(queries @ database.T, labelled)
    counted = search.count_ranks(queries, database, labelled, block)
    assert counted.dtype == np.int32
    np.testing.assert_array_equal(counted, expected)
    np.testing.assert_array_equal(
        search.count_ranks_of_scores(queries @ database.T, labelled), expected
    )


def test_blocks_of_any_size_rank_real_numbers_alike():
    draw = np.random.default_rng(3)
    queries = draw.normal(size=(3, 64)).astype(np.float32)
    # Every descriptor stands five times: ties between different places of a block.
    database = np.tile(draw.normal(size=(60, 64)).astype(np.float32), (5, 1))
    labelled = np.tile(np.arange(0, 300, 7, dtype=np.int32), (3, 1))
    whole = search.count_ranks(queries, database, labelled)
    for block in (1, 100, 256):
        np.testing.assert_array_equal(
            search.count_ranks(queries, database, labelled, block), whole
        )
    # Copies of one item follow each other in the order of their indices.
    copies = np.arange(7, 300, 60, dtype=np.int32)[None].repeat(3, 0)
    ranks = search.count_ranks(queries, database, copies, 128)
    np.testing.assert_array_equal(np.diff(ranks, axis=1), 1)


def test_a_memory_mapped_half_precision_database_ranks_like_its_float32(tmp_path):
    queries, database, labelled = tied_case(11)
    np.save(tmp_path / "half.npy", database.astype(np.float16))
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        search.count_ranks(queries, mapped, labelled, 128),
        search.count_ranks(queries, database, labelled, 128),
    )


def test_scores_are_compared_in_their_own_precision():
    scores = np.array([[0.5, 0.5 + 1e-12, 0.5]])
    ranks = search.count_ranks_of_scores(scores, np.array([[0, 1, 2]]))
    assert ranks.tolist() == [[1, 0, 2]]
    assert np.unique(scores.astype(np.float32)).size == 1


@pytest.mark.parametrize("index", [-2, 300])
def test_a_labelled_index_outside_the_database_is_refused(index):
    queries, database, labelled = tied_case(0)
    labelled[1, 2] = index
    with pytest.raises(ValueError, match="300 items"):
        search.count_ranks(queries, database, labelled)
    with pytest.raises(ValueError, match="300 items"):
        search.count_ranks_of_scores(queries @ database.T, labelled)


@FEW
@given(
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 129, 8192]),
    k=st.sampled_from([1, 10, 300]),
)
def test_top_k_is_the_beginning_of_a_stable_sort(seed, block, k):
    queries, database, _ = tied_case(seed)
    scores = queries @ database.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, items = search.top_k(queries, database, k, block)
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("k", [0, 301])
def test_top_k_of_more_than_there_is_is_refused(k):
    queries, database, _ = tied_case(0)
    with pytest.raises(ValueError, match="300 items"):
        search.top_k(queries, database, k)


def test_arrays_on_the_device_are_searched_like_numpy_arrays():
    queries, database, labelled = tied_case(5)
    np.testing.assert_array_equal(
        search.count_ranks(jnp.asarray(queries), jnp.asarray(database), labelled, 128),
        search.count_ranks(queries, database, labelled, 128),
    )
