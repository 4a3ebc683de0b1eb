"""Nearest items, and first items in a new order."""

import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.reranking.pipeline import parse_pipeline, run_step
from tokret.retrieval.reranking.ranking import (
    Ranking,
    nearest,
    neighbour_graph,
    place_reranked,
    reorder,
)


def test_no_item_is_its_own_neighbour_even_among_duplicates():
    # Items 0 to 4 are one point: item 4 comes last among its own nearest five.
    database = np.zeros((6, 2), np.float32)
    database[:5, 0] = database[5, 1] = 1
    scores, items = neighbour_graph(database, 2)
    assert items.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert scores[:5].min() == 1 and scores[5].max() == 0


def test_fewer_items_than_wanted_are_all_returned():
    rows = np.eye(3, dtype=np.float32)
    assert nearest(Ranking(rows[:1], rows), 9)[1].tolist() == [[0, 1, 2]]
    own = np.array([2], np.int32)
    assert nearest(Ranking(rows[2:], rows, own), 9)[1].tolist() == [[0, 1]]
    assert nearest(Ranking(rows[:1], rows[:1], own - 2), 9)[1].shape == (1, 0)


def test_equal_scores_keep_the_order_they_had():
    ranking = Ranking(np.zeros((1, 1), np.float32), np.zeros((4, 1), np.float32))
    first = np.zeros((1, 4), np.float32), np.array([[3, 1, 0, 2]], np.int32)
    scores, done = jnp.asarray([0.0, 5.0, 0.0, 5.0]), []
    found = reorder(ranking, first, lambda _: scores, done.append)
    assert found.reranked.tolist() == [[1, 2, 3, 0]]
    assert done == [1]


@pytest.mark.parametrize(
    "text", ["dba:n=3", "aqe:n=6,alpha=0", "superglobal", "k_reciprocal", "diffusion"]
)
def test_images_without_a_descriptor_come_last_and_change_nothing(units, text):
    database, queries = units(2, 6).astype(np.float32), units(3, 2).astype(np.float32)
    (step,) = parse_pipeline(text)
    without = run_step(step, Ranking(queries, database[:5]))
    database[5] = np.nan
    ranking = run_step(step, Ranking(queries, database))
    labelled = np.tile(np.arange(6, dtype=np.int32), (2, 1))
    orders = []
    for found in (ranking, without):
        known = labelled[:, : len(found.database)]
        ranks = count_ranks(found.queries, found.database, known)
        ranks = (
            ranks
            if found.reranked is None
            else place_reranked(ranks, known, found.reranked)
        )
        orders.append(ranks)
    assert orders[0][:, 5].tolist() == [5, 5]
    np.testing.assert_array_equal(orders[0][:, :5], orders[1])


def test_a_query_without_a_descriptor_keeps_its_order(units):
    database = units(2, 6).astype(np.float32)
    queries = units(3, 2).astype(np.float32)
    queries[1] = np.nan
    for text in ("superglobal", "k_reciprocal", "diffusion"):
        (step,) = parse_pipeline(text)
        found = run_step(step, Ranking(queries, database))
        assert found.reranked[1].tolist() == [0, 1, 2, 3, 4, 5]
