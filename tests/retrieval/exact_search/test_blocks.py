import numpy as np
import pytest

from tokret.retrieval.exact_search.blocks import ConcatenatedDatabase
from tokret.retrieval.exact_search.ranks import count_ranks


def test_pieces_are_searched_as_one(monkeypatch):
    draw = np.random.default_rng(0)
    whole = draw.integers(-2, 3, (700, 6)).astype(np.float32)
    joined = ConcatenatedDatabase(
        [whole[:130], whole[130:131].astype(np.float16), whole[131:]]
    )
    assert joined.shape == (700, 6) and len(joined) == 700
    for rows in (slice(0, 9), slice(129, 133), slice(690, 900), slice(5, 5)):
        np.testing.assert_array_equal(joined[rows], whole[rows])
    assert joined[200:300].base is not None  # not copied
    queries = draw.integers(-2, 3, (3, 6)).astype(np.float32)
    labelled = np.arange(0, 700, 9, dtype=np.int32)[None].repeat(3, 0)
    np.testing.assert_array_equal(
        count_ranks(queries, joined, labelled, 128),
        count_ranks(queries, whole, labelled),
    )


def test_pieces_of_different_models_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        ConcatenatedDatabase([np.zeros((2, 4)), np.zeros((2, 5))])
    with pytest.raises(ValueError, match="step must be 1"):
        ConcatenatedDatabase([np.zeros((2, 4))])[::2]
