"""SuperGlobal's re-ranking beside its obvious form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.reranking.ranking import Ranking
from tokret.retrieval.reranking.superglobal import (
    rerank_superglobal,
    superglobal_scores,
)


def slow_scores(query, candidates, beta, k):
    refined = []
    for i, x in enumerate(candidates):
        order = np.argsort(-(candidates @ x), kind="stable")
        total, fraction = x.copy(), 1.0
        for j in order[order != i][:k]:
            s = beta * max(x @ candidates[j], 0)
            total, fraction = total + s * candidates[j], fraction + s
        refined.append(total / fraction)
    refined = np.array(refined)
    first = refined @ query
    best = np.argsort(-first, kind="stable")[: k + 1]
    return (first + refined @ refined[best].max(axis=0)) / 2


@pytest.mark.parametrize(("m", "k", "beta"), [(20, 4, 0.15), (3, 9, 0.5), (1, 9, 0.15)])
def test_scores_are_the_slow_form(units, m, k, beta):
    query, candidates = units(0, 1)[0], units(1, m)
    with jax.enable_x64(True):
        found = superglobal_scores(
            jnp.asarray(query), jnp.asarray(candidates), beta, k=k
        )
        assert found.dtype == jnp.float64
    expected = slow_scores(query, candidates, beta, k)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_the_head_is_the_first_items_in_the_order_of_scores(units):
    queries, database = units(2, 3), units(3, 40)
    ranking = Ranking(queries.astype(np.float32), database.astype(np.float32))
    found = rerank_superglobal(ranking, top=15, k=3)
    for query, head in zip(queries, found.reranked, strict=True):
        items = np.argsort(-(database @ query), kind="stable")[:15]
        scores = slow_scores(query, database[items], 0.15, 3)
        assert head.tolist() == items[np.argsort(-scores, kind="stable")].tolist()


def test_zeros_and_duplicates_keep_their_order():
    same = np.zeros((5, 2), np.float32)
    found = rerank_superglobal(Ranking(same[:1], same), top=4, k=2)
    assert found.reranked.tolist() == [[0, 1, 2, 3]]
    same[:, 0] = 1
    found = rerank_superglobal(Ranking(same[:1], same), top=9, k=2)
    assert found.reranked.tolist() == [[0, 1, 2, 3, 4]]
