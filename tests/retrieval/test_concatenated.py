import numpy as np
import pytest

from tokret.retrieval import search
from tokret.retrieval.concatenated import Joined


def test_pieces_are_searched_as_one(monkeypatch):
    draw = np.random.default_rng(0)
    whole = draw.integers(-2, 3, (700, 6)).astype(np.float32)
    joined = Joined([whole[:130], whole[130:131].astype(np.float16), whole[131:]])
    assert joined.shape == (700, 6) and len(joined) == 700
    for rows in (slice(0, 9), slice(129, 133), slice(690, 900), slice(5, 5)):
        np.testing.assert_array_equal(joined[rows], whole[rows])
    assert joined[200:300].base is not None  # not copied
    queries = draw.integers(-2, 3, (3, 6)).astype(np.float32)
    labelled = np.arange(0, 700, 9, dtype=np.int32)[None].repeat(3, 0)
    np.testing.assert_array_equal(
        search.count_ranks(queries, joined, labelled, 128),
        search.count_ranks(queries, whole, labelled),
    )


def test_pieces_of_different_models_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        Joined([np.zeros((2, 4)), np.zeros((2, 5))])
    with pytest.raises(ValueError, match="follow one another"):
        Joined([np.zeros((2, 4))])[::2]
