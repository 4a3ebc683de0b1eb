import numpy as np

from tokret.retrieval.compression import int8
from tokret.retrieval.exact_search.top_k import top_k


def test_a_step_is_the_largest_of_a_dimension_by_127(unit_vectors):
    database = unit_vectors(200, 16)
    database[:, 3] = 0
    scale = int8.fit_scale(database)
    codes = int8.encode(database, scale)
    assert codes.dtype == np.int8 and np.abs(codes).max() == 127
    assert np.all(np.abs(codes * scale - database) <= scale / 2 + 1e-9)
    np.testing.assert_array_equal(codes[:, 3], 0)


def test_queries_are_ranked_nearly_as_before_whatever_their_length(unit_vectors):
    database, queries = unit_vectors(500, 64), unit_vectors(6, 64, seed=1)
    scale = int8.fit_scale(database)
    codes = int8.encode(database, scale)
    encoded = int8.encode_queries(queries, scale)
    np.testing.assert_array_equal(int8.encode_queries(7 * queries, scale), encoded)
    best, items = top_k(encoded, codes, 10)
    assert best.dtype == np.int32
    _, exact = top_k(queries, database, 10)
    assert (
        np.mean([len(set(a) & set(b)) for a, b in zip(items, exact, strict=True)]) > 8
    )
    np.testing.assert_array_equal(int8.encode_queries(np.zeros((1, 64)), scale), 0)
