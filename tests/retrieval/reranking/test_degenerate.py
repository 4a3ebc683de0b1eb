"""What every method makes of few, equal and empty descriptors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.reranking.pipeline import METHODS, parse_pipeline, run_step
from tokret.retrieval.reranking.ranking import Ranking, place_reranked

FEW = settings(derandomize=True, deadline=None, max_examples=12)
TEXTS = (
    "dba:n=3",
    "aqe:n=3",
    "superglobal:top=5,k=2",
    "k_reciprocal:top=5,k1=3,k2=2",
    "diffusion:top=5,k=3,kq=2",
)


def signs(seed, n):
    """Rows of length 1 of few values, among them duplicates and rows of zeros."""
    rows = np.random.default_rng(seed).integers(-1, 2, (n, 2)).astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1)


def test_every_method_is_tried():
    assert {text.partition(":")[0] for text in TEXTS} == set(METHODS)


@pytest.mark.parametrize("text", TEXTS)
@FEW
@given(seed=st.integers(0, 10**6), n=st.sampled_from([1, 2, 8]), itself=st.booleans())
def test_every_item_keeps_one_place(text, seed, n, itself):
    database = signs(seed, n)
    count = n if itself else 2
    queries = database if itself else signs(seed + 1, count)
    own = np.arange(n, dtype=np.int32) if itself else None
    (step,) = parse_pipeline(text)
    found = run_step(step, Ranking(queries, database, own))
    for rows in (found.queries, found.database):
        length = np.linalg.norm(rows, axis=1)
        assert np.all((np.abs(length - 1) < 1e-5) | (length == 0))
    everyone = np.tile(np.arange(n, dtype=np.int32), (count, 1))
    ranks = count_ranks(found.queries, found.database, everyone)
    assert np.sort(ranks).tolist() == everyone.tolist()
    if found.reranked is None:
        return
    assert found.reranked.shape == (count, min(5, n - itself))
    if itself:
        assert not np.any(found.reranked == own[:, None])
        return
    placed = place_reranked(ranks, everyone, found.reranked)
    assert np.sort(placed).tolist() == everyone.tolist()
    behind = ranks >= found.reranked.shape[1]
    np.testing.assert_array_equal(placed[behind], ranks[behind])
