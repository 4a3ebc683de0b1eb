import numpy as np
import pytest

from tokret.retrieval.compression import product
from tokret.retrieval.compression.database import compress
from tokret.retrieval.compression.faiss_search import FaissSearch
from tokret.retrieval.exact_search.top_k import top_k

faiss = pytest.importorskip("faiss", reason="the extra faiss is not installed")


@pytest.fixture(scope="module")
def case(unit_vectors):
    """Queries, database, and the database in 8 bytes an image."""
    database = unit_vectors(900, 32)
    return unit_vectors(5, 32, seed=1), database, compress(database, "pq8")


def test_a_code_is_the_nearest_centroid_of_each_part(case):
    _, database, compressed = case
    parts = database.reshape(900, 8, 4)
    away = parts[:, :, None] - compressed.quantiser.centroids  # [n, m, 256, s]
    np.testing.assert_array_equal(
        compressed.codes, np.argmin((away.astype(float) ** 2).sum(3), axis=2)
    )


def decode(quantiser, codes):
    """The descriptors that codes stand for."""
    parts = len(quantiser.centroids)
    rows = quantiser.centroids[np.arange(parts), codes].reshape(len(codes), -1)
    return rows[:, product.columns_of(quantiser.dims, parts)]


def test_scores_are_products_with_what_the_codes_stand_for(case):
    queries, database, compressed = case
    decoded = decode(compressed.quantiser, compressed.codes)
    assert np.linalg.norm(decoded - database, axis=1).mean() < 0.5
    best, items = top_k(compressed.encode_queries(queries), compressed.codes, 900, 128)
    expected = np.take_along_axis(queries @ decoded.T, items, axis=1)
    np.testing.assert_allclose(best, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["pq8", "pq7"])
def test_devices_and_faiss_give_the_same_scores(case, unit_vectors, form):
    queries, database, _ = case
    compressed = compress(database, form)
    best, items = top_k(compressed.encode_queries(queries), compressed.codes, 40)
    for threads in (1, 3):
        theirs, which = FaissSearch(compressed, threads).top_k(queries, 40)
        np.testing.assert_allclose(best, theirs, rtol=0, atol=1e-6)
        # Equal codes score alike, and faiss takes any of them first.
        assert (items == which).mean() > 0.9


def test_faiss_itself_codes_and_scores_the_same(case):
    queries, database, compressed = case
    index = faiss.IndexPQ(32, 8, 8, faiss.METRIC_INNER_PRODUCT)
    index.train(database)
    index.add(database)
    codes = faiss.vector_to_array(index.codes).reshape(900, 8)
    np.testing.assert_array_equal(codes, compressed.codes)
    theirs, _ = index.search(queries, 10)
    best, _ = top_k(compressed.encode_queries(queries), compressed.codes, 10)
    np.testing.assert_allclose(best, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 5, 31, 32])
def test_any_number_of_bytes(unit_vectors, parts):
    database = unit_vectors(300, 32)
    quantiser = product.train(database, parts)
    codes = product.encode(quantiser, database)
    assert codes.shape == (300, parts)
    decoded = decode(quantiser, codes)
    assert decoded.shape == database.shape
    queries = unit_vectors(2, 32, seed=1)
    tables = product.tables(quantiser, queries)
    scores = tables[:, np.arange(parts), codes].sum(axis=2)
    np.testing.assert_allclose(scores, queries @ decoded.T, rtol=0, atol=1e-6)


def test_fewer_images_than_centroids_are_kept_as_they_are(unit_vectors):
    database = unit_vectors(40, 16)
    quantiser = product.train(database, 4)
    decoded = decode(quantiser, product.encode(quantiser, database))
    np.testing.assert_allclose(decoded, database, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parts", [0, 17])
def test_more_bytes_than_dimensions_are_refused(unit_vectors, parts):
    with pytest.raises(ValueError, match="in 1 to 16"):
        product.train(unit_vectors(300, 16), parts)
