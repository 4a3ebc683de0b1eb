import numpy as np

from tokret.retrieval import search
from tokret.retrieval.compression import integers


def test_a_step_is_the_largest_of_a_dimension_by_127(unit_vectors):
    database = unit_vectors(200, 16)
    database[:, 3] = 0
    scale = integers.find_scale(database)
    codes = integers.encode(database, scale)
    assert codes.dtype == np.int8 and np.abs(codes).max() == 127
    assert np.all(np.abs(codes * scale - database) <= scale / 2 + 1e-9)
    np.testing.assert_array_equal(codes[:, 3], 0)


def test_queries_are_ranked_nearly_as_before_whatever_their_length(unit_vectors):
    database, queries = unit_vectors(500, 64), unit_vectors(6, 64, seed=1)
    scale = integers.find_scale(database)
    codes = integers.encode(database, scale)
    asked = integers.ask(queries, scale)
    np.testing.assert_array_equal(integers.ask(7 * queries, scale), asked)
    best, items = search.top_k(asked, codes, 10)
    assert best.dtype == np.int32
    _, exact = search.top_k(queries, database, 10)
    assert (
        np.mean([len(set(a) & set(b)) for a, b in zip(items, exact, strict=True)]) > 8
    )
    np.testing.assert_array_equal(integers.ask(np.zeros((1, 64)), scale), 0)
