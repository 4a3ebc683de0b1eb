"""Diffusion beside its obvious form: a dense graph and a dense solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.reranking.diffusion import diffused_scores, rerank_diffusion
from tokret.retrieval.reranking.ranking import Ranking

EXACT = 1000


def slow_graph(database, k, gamma, excluded=()):
    """Affinities of mutual neighbours in the database without some items."""
    n = len(database)
    products = database @ database.T
    listed = []
    for i in range(n):
        order = np.argsort(-products[i], kind="stable")
        listed.append([j for j in order if j != i and j not in excluded][:k])
    graph = np.zeros((n, n))
    for i in range(n):
        for j in listed[i]:
            if i in listed[j]:
                graph[i, j] = max(products[i, j], 0) ** gamma
    return graph


def slow_scores(query, database, items, graph, kq, alpha, gamma):
    kept = graph[np.ix_(items, items)]
    degree = kept.sum(axis=1)
    root = np.array([d**-0.5 if d > 0 else 0 for d in degree])
    smooth = root[:, None] * kept * root
    y = np.maximum(database[items] @ query, 0) ** gamma
    y[kq:] = 0
    return np.linalg.solve(np.eye(len(items)) - alpha * smooth, y)


def first(query, database, count, excluded=()):
    order = np.argsort(-(database @ query), kind="stable")
    return np.array([i for i in order if i not in excluded][:count])


@pytest.mark.parametrize("own", [-1, 7])
@pytest.mark.parametrize(("top", "k"), [(40, 6), (15, 6), (40, 39)])
def test_scores_are_those_of_a_dense_solve(units, own, top, k):
    query, database = units(0, 1)[0], units(1, 40)
    excluded = () if own < 0 else (own,)
    items = first(query, database, top, excluded)
    products = database @ database.T - 9 * np.eye(40)
    near = np.argsort(-products, axis=1, kind="stable")[items, : k + 1]
    affinity = np.take_along_axis(products[items], near, axis=1)
    itself = affinity < -1
    affinity = np.where(itself, 0, affinity)
    with jax.enable_x64(True):
        found = diffused_scores(
            jnp.asarray(database[items] @ query),
            jnp.asarray(items),
            (jnp.asarray(affinity), jnp.asarray(near)),
            own,
            0.9,
            3.0,
            k=k,
            kq=4,
            iterations=EXACT,
        )
        assert found.dtype == jnp.float64
    graph = slow_graph(database, k, 3.0, excluded)
    expected = slow_scores(query, database, items, graph, 4, 0.9, 3.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())
    assert 0 < np.count_nonzero(expected)


@pytest.mark.parametrize("among", [False, True])
def test_the_head_is_the_first_items_in_the_order_of_scores(units, among):
    database = units(4, 40)
    queries = database[:3] if among else units(5, 3)
    own = np.arange(3, dtype=np.int32) if among else None
    half = [side.astype(np.float32) for side in (queries, database)]
    found = rerank_diffusion(
        Ranking(*half, query_items=own), top=20, k=5, kq=3, alpha=0.9, iterations=EXACT
    )
    for row, query in enumerate(queries):
        excluded = (row,) if among else ()
        items = first(query, database, 20, excluded)
        graph = slow_graph(database, 5, 3.0, excluded)
        scores = slow_scores(query, database, items, graph, 3, 0.9, 3.0)
        place = {item: scores[i] for i, item in enumerate(items)}
        ordered = np.array([place[item] for item in found.reranked[row]])
        # Near ties may fall either way in float32.
        assert np.all(np.diff(ordered) < 1e-4 * scores.max())
        assert set(found.reranked[row]) == set(items)


def test_what_is_not_reached_stays_in_its_order_behind():
    # Two far pairs; the query sees the pair (0, 1) and, less, 3 and 2.
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    query = np.array([[0.9, 0.3, 0.316]], np.float32)
    found = rerank_diffusion(Ranking(query, rows), top=4, k=1, kq=2)
    assert found.reranked.tolist() == [[0, 1, 3, 2]]


def test_zeros_and_duplicates_keep_their_order():
    same = np.zeros((5, 2), np.float32)
    found = rerank_diffusion(Ranking(same[:1], same))
    assert found.reranked.tolist() == [[0, 1, 2, 3, 4]]
    own = np.array([0], np.int32)
    alone = rerank_diffusion(Ranking(same[:1], same[:1], own))
    assert alone.reranked.shape == (1, 0)
