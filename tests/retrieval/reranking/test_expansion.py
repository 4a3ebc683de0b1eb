"""Query expansion and database-side augmentation, beside their obvious forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.reranking import expansion
from tokret.retrieval.reranking.ranking import Ranking

NOBODY = np.array([], int)


def order_of(query, database, excluded):
    """All items by falling products, ties by index, but those excluded."""
    order = np.argsort(-(database @ query), kind="stable")
    return order[~np.isin(order, excluded)]


def slow_expansion(queries, database, n, alpha, own=None):
    expanded = []
    for row, query in enumerate(queries):
        total = query.copy()
        for item in order_of(query, database, NOBODY if own is None else own[row])[:n]:
            total += max(query @ database[item], 0) ** alpha * database[item]
        expanded.append(total / np.linalg.norm(total))
    return np.array(expanded)


def slow_augmentation(database, n, weighting):
    augmented = []
    for item, row in enumerate(database):
        total = row.copy()
        k = min(n, len(database) - 1) + 1
        for r, other in enumerate(order_of(row, database, item)[:n], start=1):
            total += (1 if weighting == "equal" else (k - r) / k) * database[other]
        augmented.append(total / np.linalg.norm(total))
    return np.array(augmented)


def test_joining_is_a_weighted_sum_of_length_one(units):
    rows, near = units(0, 4), units(1, 12).reshape(4, 3, 8)
    weights = np.random.default_rng(2).uniform(size=(4, 3))
    total = rows + (weights[..., None] * near).sum(axis=1)
    with jax.enable_x64(True):
        joined = expansion.add_neighbours(*map(jnp.asarray, (rows, near, weights)))
        assert joined.dtype == jnp.float64
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "alpha"), [(3, 3.0), (1, 0.5), (4, 0.0), (99, 2.0)])
def test_alpha_query_expansion_is_the_slow_form(units, n, alpha):
    queries, database = units(3, 5), units(4, 30)
    ranking = Ranking(queries.astype(np.float32), database.astype(np.float32))
    found = expansion.expand_queries(ranking, n, alpha)
    expected = slow_expansion(queries, database, n, alpha)
    np.testing.assert_allclose(found.queries, expected, rtol=0, atol=1e-6)
    assert found.database is ranking.database


def test_a_query_item_does_not_expand_itself(units):
    database = units(5, 30)
    own = np.arange(30, dtype=np.int32)
    half = database.astype(np.float32)
    found = expansion.expand_queries(Ranking(half, half, own), 4, 3.0)
    expected = slow_expansion(database, database, 4, 3.0, own)
    np.testing.assert_allclose(found.queries, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weighting", ["rank", "equal"])
@pytest.mark.parametrize("n", [4, 99])
def test_augmentation_is_the_slow_form(units, weighting, n):
    database = units(6, 30)
    half = database.astype(np.float32)
    found = expansion.augment_database(Ranking(half[:3], half), n, weighting)
    expected = slow_augmentation(database, n, weighting)
    np.testing.assert_allclose(found.database, expected, rtol=0, atol=1e-6)


def test_many_rows_in_blocks_are_joined_like_few(units, monkeypatch):
    half = units(7, 30).astype(np.float32)
    whole = expansion.augment_database(Ranking(half[:3], half), 4)
    monkeypatch.setattr(expansion, "ROWS", 7)
    parts = expansion.augment_database(Ranking(half[:3], half), 4)
    np.testing.assert_allclose(parts.database, whole.database, rtol=0, atol=1e-6)


def test_rows_of_zeros_stay_zeros_and_duplicates_stay_themselves():
    database = np.zeros((3, 2), np.float32)
    database[1:, 0] = 1
    ranking = Ranking(database[:2], database)
    expanded = expansion.expand_queries(ranking, 2, 3.0)
    np.testing.assert_array_equal(expanded.queries, database[:2])
    augmented = expansion.augment_database(ranking, 1)
    np.testing.assert_array_equal(augmented.database[1:], database[1:])
