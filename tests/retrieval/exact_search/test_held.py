import numpy as np
import pytest

from tokret.retrieval.compression import int8
from tokret.retrieval.exact_search import held
from tokret.retrieval.exact_search.held import HeldDatabase
from tokret.retrieval.exact_search.top_k import top_k

DIMS = 32


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(held, "LONG", 1024)
    monkeypatch.setattr(held, "SHORT", 256)
    monkeypatch.setattr(held, "READ", 100)


def unit(rows, seed=0):
    array = np.random.default_rng(seed).standard_normal((rows, DIMS)).astype(np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def held_rows(*pieces, dtype=np.float32, hold=True):
    database = HeldDatabase(DIMS, np.dtype(dtype))
    for piece in pieces:
        database = database.extended(piece, hold=hold)
    return database


def assert_same(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("rows", [1, 127, 256, 1400, 2500])
def test_results_are_those_of_top_k_to_the_last_bit(rows, hold):
    database, query = unit(rows), unit(1, seed=1)
    found = held_rows(database, hold=hold).search(query, min(rows, 20))
    assert_same(found, top_k(query, database, min(rows, 20)))


def test_several_queries_give_the_scores_of_each_alone():
    database = np.concatenate([unit(1500), unit(300)])  # 300 rows are there twice
    kept, queries = held_rows(database), np.concatenate([unit(6, seed=1), database[:1]])
    found = kept.search(queries, 20)
    for row, query in enumerate(queries):
        alone = top_k(query[None], database, 20)
        assert_same((found[0][row], found[1][row]), (alone[0][0], alone[1][0]))


def test_scores_that_differ_by_rounding_are_computed_alone():
    database = np.repeat(unit(1), 400, axis=0)
    queries = np.concatenate([database[:1], unit(2, seed=1)])
    scores, items = held_rows(database).search(queries, 10)
    for row, query in enumerate(queries):
        alone = top_k(query[None], database, 10)
        assert_same((scores[row], items[row]), (alone[0][0], alone[1][0]))


@pytest.mark.parametrize("count", [0, 1, 30, 900])
@pytest.mark.parametrize("queries", [1, 3])
def test_a_filter_is_exact(count, queries):
    database, wanted = unit(1500), unit(queries, seed=1)
    chosen = np.zeros(1500, bool)
    chosen[np.random.default_rng(2).permutation(1500)[:count]] = True
    scores, items = held_rows(database).search(wanted, 40, chosen)
    rows = np.flatnonzero(chosen)
    for row, query in enumerate(wanted):
        k = min(40, count)
        assert (items[row, k:] == -1).all()
        if k:
            alone = top_k(query[None], database[rows], k)
            np.testing.assert_array_equal(items[row, :k], rows[alone[1][0]])
            np.testing.assert_array_equal(scores[row, :k], alone[0][0])


def test_adding_rows_changes_only_the_last_block():
    database, query = unit(1300), unit(1, seed=1)
    first = held_rows(database[:1290])
    both = first.extended(database[1290:])
    assert len(first) == 1290 and len(both) == 1300
    assert first.blocks[0].load() is both.blocks[0].load()
    assert_same(both.search(query, 50), top_k(query, database, 50))
    assert_same(first.search(query, 50), top_k(query, database[:1290], 50))
    grown = held_rows(*np.split(database, [1, 3, 300, 301, 1100]))
    assert_same(grown.search(query, 50), top_k(query, database, 50))


def add_block_programs():
    return held.add_block._cache_size()  # type: ignore[attr-defined]


def test_adding_rows_or_another_filter_compiles_nothing():
    database, queries = unit(1700), unit(3, seed=1)
    kept = held_rows(database[:1300])

    def searches(kept):
        for some in (queries[:1], queries):
            kept.search(some, 5)
            for step in (2, 3, 50):
                kept.search(some, 7, np.arange(len(kept)) % step == 0)

    searches(kept)
    before = add_block_programs()
    for row in range(1300, 1310):
        kept = kept.extended(database[row : row + 1])
        searches(kept)
    assert add_block_programs() == before


def test_rows_by_index():
    database = unit(1500)
    items = np.array([1499, 3, 1024, 3], np.int32)
    np.testing.assert_array_equal(held_rows(database).take(items), database[items])


def test_int8_rows():
    database, queries = unit(1500), unit(3, seed=1)
    scale = int8.fit_scale(database)
    codes, wanted = int8.encode(database, scale), int8.encode_queries(queries, scale)
    found = held_rows(codes, dtype=np.int8).search(wanted, 20)
    assert_same(found, top_k(wanted, codes, 20))
    exact = np.take_along_axis(queries @ database.T, found[1], axis=1)
    cosines = found[0] * int8.query_units(queries, scale)
    np.testing.assert_allclose(cosines, exact, atol=0.02)
