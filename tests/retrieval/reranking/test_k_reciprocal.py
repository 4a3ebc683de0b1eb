"""k-reciprocal encoding beside its obvious form: sets, dictionaries, loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.reranking.k_reciprocal import (
    k_reciprocal_distances,
    rerank_k_reciprocal,
)
from tokret.retrieval.reranking.ranking import Ranking


def slow_distances(query, candidates, weight, k1, k2, widen=True):
    nodes = np.concatenate([query[None], candidates])
    n = len(nodes)
    d = np.array([[np.sum((a - b) ** 2) for b in nodes] for a in nodes])
    order = []
    for i in range(n):
        others = [j for j in np.argsort(d[i], kind="stable") if j != i]
        order.append([i, *others])
    d = d / np.maximum(d.max(axis=1, keepdims=True), 1e-300)

    def reciprocal(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    codes = np.zeros((n, n))
    for i in range(n):
        mine = reciprocal(i, k1)
        wide = set(mine)
        for j in mine:
            theirs = reciprocal(j, round(k1 / 2))
            if widen and 3 * len(theirs & mine) >= 2 * len(theirs):
                wide |= theirs
        for j in wide:
            codes[i, j] = np.exp(-d[i, j])
        codes[i] /= codes[i].sum()
    codes = np.array([codes[order[i][:k2]].mean(axis=0) for i in range(n)])
    shared = np.minimum(codes[0], codes[1:]).sum(axis=1)
    jaccard = 1 - shared / np.maximum(codes[0], codes[1:]).sum(axis=1)
    return (1 - weight) * jaccard + weight * d[0, 1:]


@pytest.mark.parametrize(
    ("m", "k1", "k2"), [(40, 6, 3), (40, 7, 1), (25, 2, 4), (4, 20, 6), (1, 20, 6)]
)
def test_distances_are_the_slow_form(units, m, k1, k2):
    query, candidates = units(0, 1)[0], units(1, m)
    with jax.enable_x64(True):
        found = k_reciprocal_distances(
            jnp.asarray(query), jnp.asarray(candidates), 0.3, k1=k1, k2=k2
        )
        assert found.dtype == jnp.float64
    expected = slow_distances(query, candidates, 0.3, k1, k2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_these_cases_separate_wide_codes_from_narrow_ones(units):
    case = units(0, 1)[0], units(1, 40), 0.3, 6, 3
    wide, narrow = slow_distances(*case), slow_distances(*case, widen=False)
    assert np.abs(wide - narrow).max() > 1e-3


def test_the_first_items_are_ordered_by_distance_without_the_query_item(units):
    database = units(4, 30)
    own = np.arange(30, dtype=np.int32)
    half = database.astype(np.float32)
    found = rerank_k_reciprocal(Ranking(half, half, own), top=12, k1=5, k2=2)
    for item in (0, 17):
        items = np.argsort(-(database @ database[item]), kind="stable")
        items = items[items != item][:12]
        far = slow_distances(database[item], database[items], 0.3, 5, 2)
        ordered = items[np.argsort(far, kind="stable")]
        assert found.reranked[item].tolist() == ordered.tolist()


def test_zeros_and_duplicates_keep_their_order():
    same = np.zeros((5, 2), np.float32)
    found = rerank_k_reciprocal(Ranking(same[:1], same), k1=2, k2=1)
    assert sorted(found.reranked[0].tolist()) == [0, 1, 2, 3, 4]
    found = rerank_k_reciprocal(Ranking(same[:1], same), k1=9, k2=9)
    assert found.reranked.tolist() == [[0, 1, 2, 3, 4]]
