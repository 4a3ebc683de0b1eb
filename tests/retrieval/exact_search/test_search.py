import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.servers import free_port
from tokret.retrieval.exact_search import blocks as blocks_module
from tokret.retrieval.exact_search import top_k as selection
from tokret.retrieval.exact_search.blocks import BLOCK, aligned_empty, stream_blocks
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.exact_search.top_k import top_k

FEW = settings(derandomize=True, deadline=None, max_examples=25)


def sorted_ranks(scores, labelled):
    """The obvious form: a stable sort, then each item's place in it."""
    ranks = np.full(labelled.shape, -1)
    for query, row in enumerate(scores):
        order = list(np.argsort(-row, kind="stable"))
        for column, item in enumerate(labelled[query]):
            if item >= 0:
                ranks[query, column] = order.index(item)
    return ranks


def tied_case(seed, q=3, n=300, d=4, labels=6):
    """Descriptors of small integers: exact products, and ties everywhere."""
    draw = np.random.default_rng(seed)
    queries = draw.integers(-1, 2, (q, d)).astype(np.float32)
    database = draw.integers(-1, 2, (n, d)).astype(np.float32)
    labelled = draw.integers(-1, n, (q, labels)).astype(np.int32)
    return queries, database, labelled


@FEW
@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 128, 129, 300, 8192]))
def test_counted_ranks_are_places_in_a_stable_sort(seed, block):
    queries, database, labelled = tied_case(seed)
    expected = sorted_ranks(queries @ database.T, labelled)
    counted = count_ranks(queries, database, labelled, block)
    assert counted.dtype == np.int32
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_blocks_of_any_size_rank_real_numbers_alike(count):
    draw = np.random.default_rng(3)
    queries = draw.normal(size=(count, 64)).astype(np.float32)
    # Every descriptor stands five times: ties between different places of a block.
    database = np.tile(draw.normal(size=(60, 64)).astype(np.float32), (5, 1))
    labelled = np.tile(np.arange(0, 300, 7, dtype=np.int32), (count, 1))
    whole = count_ranks(queries, database, labelled)
    for block in (1, 100, 256):
        np.testing.assert_array_equal(
            count_ranks(queries, database, labelled, block), whole
        )
    # Copies of one item follow each other in the order of their indices.
    copies = np.arange(7, 300, 60, dtype=np.int32)[None].repeat(count, 0)
    ranks = count_ranks(queries, database, copies, 128)
    np.testing.assert_array_equal(np.diff(ranks, axis=1), 1)


def test_a_memory_mapped_half_precision_database_ranks_like_its_float32(tmp_path):
    queries, database, labelled = tied_case(11)
    np.save(tmp_path / "half.npy", database.astype(np.float16))
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        count_ranks(queries, mapped, labelled, 128),
        count_ranks(queries, database, labelled, 128),
    )


@pytest.mark.parametrize("index", [-2, 300])
def test_a_labelled_index_outside_the_database_is_refused(index):
    queries, database, labelled = tied_case(0)
    labelled[1, 2] = index
    with pytest.raises(ValueError, match="300 items"):
        count_ranks(queries, database, labelled)


@FEW
@given(
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 129, 8192]),
    k=st.sampled_from([1, 10, 300]),
)
def test_top_k_is_the_beginning_of_a_stable_sort(seed, block, k):
    queries, database, _ = tied_case(seed)
    scores = queries @ database.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, items = top_k(queries, database, k, block)
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


def test_few_queries_get_longer_blocks(monkeypatch):
    used = []
    plain = stream_blocks

    def stream(database, block):
        used.append(block)
        return plain(database, block)

    monkeypatch.setattr(selection, "stream_blocks", stream)
    queries, database, _ = tied_case(0, q=70)
    for count in (1, 8, 16, 70):
        _, items = top_k(queries[:count], database, 10)
        order = np.argsort(-(queries[:count] @ database.T), axis=1, kind="stable")
        np.testing.assert_array_equal(items, order[:, :10])
    assert [rows // BLOCK for rows in used] == [8, 8, 4, 1]


@pytest.mark.parametrize("at_once", [2, 3, 99])
@pytest.mark.parametrize("devices", [1, 3])
def test_blocks_that_are_selected_from_together(monkeypatch, at_once, devices):
    """As a GPU's are: the same items, ties and rows of NaN included."""
    draw = np.random.default_rng(0)
    database = draw.integers(-2, 3, (1100, 4)).astype(np.float32)
    database[::97] = np.nan
    queries = draw.integers(-2, 3, (6, 4)).astype(np.float32)
    blocks = stream_blocks(database, 128, jax.devices()[:devices])
    one_by_one = [top_k(queries, blocks, k) for k in (1, 30, 1100)]
    monkeypatch.setattr(selection, "blocks_together", lambda *_: at_once)
    together = [top_k(queries, blocks, k) for k in (1, 30, 1100)]
    jax.tree.map(np.testing.assert_array_equal, one_by_one, together)


def test_a_gpu_holds_so_many_blocks(monkeypatch):
    block = jnp.zeros((128, 2))
    assert selection.blocks_together(8, block, "cpu") == 1
    assert selection.blocks_together(8, block, "gpu") == selection.BLOCKS
    assert (
        selection.blocks_together(2**18, block, "gpu")
        == selection.SCORES // (2**18 * 128)
        == 4
    )
    assert selection.blocks_together(0, block, "gpu") == selection.BLOCKS
    monkeypatch.setattr(selection, "BYTES", 5 * block.nbytes)
    assert selection.blocks_together(8, block, "gpu") == 5
    assert selection.blocks_together(2**30, block, "gpu") == 1


@pytest.mark.parametrize("k", [0, 301])
def test_a_k_out_of_range_is_refused(k):
    queries, database, _ = tied_case(0)
    with pytest.raises(ValueError, match="300 items"):
        top_k(queries, database, k)


def test_arrays_on_the_device_are_searched_like_numpy_arrays():
    queries, database, labelled = tied_case(5)
    np.testing.assert_array_equal(
        count_ranks(jnp.asarray(queries), jnp.asarray(database), labelled, 128),
        count_ranks(queries, database, labelled, 128),
    )


def test_images_without_a_descriptor_come_last_in_the_order_of_indices():
    queries, database, _ = tied_case(5)
    scores = queries @ database.T
    bad = [3, 129, 299]
    database[bad], scores[:, bad] = np.nan, -1e30
    labelled = np.arange(300, dtype=np.int32)[None].repeat(3, 0)
    expected = sorted_ranks(scores, labelled)
    assert expected[:, bad].tolist() == [[297, 298, 299]] * 3
    np.testing.assert_array_equal(
        count_ranks(queries, database, labelled, 128), expected
    )
    _, items = top_k(queries, database, 300, 128)
    np.testing.assert_array_equal(items[:, -3:], [bad] * 3)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_number_of_devices_changes_nothing(count):
    draw = np.random.default_rng(7)
    queries = draw.normal(size=(5, 96)).astype(np.float32)
    # Ties between blocks of different devices.
    database = np.tile(draw.normal(size=(190, 96)).astype(np.float32), (4, 1))
    labelled = np.tile(np.arange(0, 760, 11, dtype=np.int32), (5, 1))
    devices = jax.devices()[:count]
    blocks = stream_blocks(database, 128, devices)
    assert {blocks.device(i) for i in range(len(blocks))} == set(devices)
    one = stream_blocks(database, devices=devices[:1])
    np.testing.assert_array_equal(
        count_ranks(queries, blocks, labelled), count_ranks(queries, one, labelled)
    )
    for k in (3, 200):
        best, items = top_k(queries, blocks, k)
        whole = top_k(queries, one, k)
        np.testing.assert_array_equal(items, whole[1])
        np.testing.assert_array_equal(best, whole[0])


IN_TWO_PROCESSES = """
import sys
import jax, numpy as np
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.exact_search.top_k import top_k
case = np.load(sys.argv[3])
parts = [case[name] for name in ("queries", "database", "labelled")]
assert len(jax.devices()) == 8 and len(jax.local_devices()) == 4
# In one block, the second process has nothing to do.
for block, name in ((128, "many"), (8192, "one")):
    ranks = count_ranks(*parts, block)
    best, items = top_k(*parts[:2], 20, block)
    np.savez(f"{sys.argv[3]}.{name}.{sys.argv[2]}", ranks=ranks, best=best, items=items)
"""


def test_two_processes_give_the_same(tmp_path):
    queries, database, labelled = tied_case(3, n=1200)
    path = tmp_path / "case.npz"
    np.savez(path, queries=queries, database=database, labelled=labelled)
    port = free_port()
    root = Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", IN_TWO_PROCESSES, str(port), str(number), str(path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in running:
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
    expected = count_ranks(queries, database, labelled)
    best, items = top_k(queries, database, 20)
    for name in ("many", "one"):
        for number in range(2):
            found = np.load(f"{path}.{name}.{number}.npz")
            np.testing.assert_array_equal(found["ranks"], expected)
            np.testing.assert_array_equal(found["items"], items)
            np.testing.assert_array_equal(found["best"], best)


def test_bfloat16_is_searched_like_the_float32_it_stands_for():
    draw = np.random.default_rng(4)
    queries = draw.normal(size=(3, 64)).astype(np.float32)
    database = draw.normal(size=(300, 64)).astype(ml_dtypes.bfloat16)
    labelled = np.arange(300, dtype=np.int32)[None].repeat(3, 0)
    assert stream_blocks(database).load(0).dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        count_ranks(queries, database, labelled, 128),
        count_ranks(queries, database.astype(np.float32), labelled),
    )


@FEW
@given(seed=st.integers(0, 10**6), dims=st.sampled_from([3, 1024, 1500, 2048]))
def test_int8_scores_are_the_exact_integers(seed, dims):
    draw = np.random.default_rng(seed)
    queries = draw.integers(-127, 128, (3, dims)).astype(np.int8)
    database = draw.integers(-127, 128, (150, dims)).astype(np.int8)
    database[:2] = [[127], [-127]]  # the largest sums there can be
    queries[0] = 127
    scores = queries.astype(np.int64) @ database.T.astype(np.int64)
    order = np.argsort(-scores, axis=1, kind="stable")
    best, items = top_k(queries, database, 150, 128)
    assert best.dtype == np.int32
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))
    labelled = np.arange(150, dtype=np.int32)[None].repeat(3, 0)
    np.testing.assert_array_equal(
        count_ranks(queries, database, labelled, 128),
        sorted_ranks(scores, labelled),
    )


def test_int8_queries_and_database_need_each_other():
    queries, database, labelled = tied_case(0)
    for q, db in ((queries.astype(np.int8), database), (queries, database.astype("b"))):
        with pytest.raises(ValueError, match="need each other"):
            count_ranks(q, db, labelled)
        with pytest.raises(ValueError, match="need each other"):
            top_k(q, db, 3)


def test_the_best_are_in_the_order_of_large_integers():
    """These differ by less than float32 resolves."""
    queries = np.full((1, 2048), 127, np.int8)
    database = np.full((300, 2048), 127, np.int8)
    queries[:, 0] = 1
    database[:, 0] = np.random.default_rng(0).integers(-3, 3, 300)
    scores, items = top_k(queries, database, 200)
    assert (np.diff(scores) <= 0).all() and len(np.unique(scores)) > 1
    true = queries.astype(np.int32) @ database.astype(np.int32).T
    np.testing.assert_array_equal(scores, np.take_along_axis(true, items, axis=1))


def test_more_queries_than_are_scored_together(monkeypatch):
    queries, database, labelled = tied_case(2, q=7)
    whole = count_ranks(queries, database, labelled)
    best = top_k(queries, database, 5)
    monkeypatch.setattr(blocks_module, "QUERIES", 3)
    np.testing.assert_array_equal(count_ranks(queries, database, labelled), whole)
    np.testing.assert_array_equal(top_k(queries, database, 5)[1], best[1])


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16])
def test_memory_and_files_are_read_where_they_are(tmp_path, dtype):
    rows = aligned_empty((300, 64), dtype)
    rows[:] = np.arange(300)[:, None] % 100
    assert rows.dtype == dtype and rows.flags.c_contiguous
    devices = jax.devices()[:1]
    blocks = stream_blocks(rows, 128, devices)
    for number, start in enumerate((0, 128, 172)):
        block = blocks.load(number)
        assert block.unsafe_buffer_pointer() == rows[start:].ctypes.data
        np.testing.assert_array_equal(block, rows[start : start + 128])
    if dtype == np.float32:
        np.save(tmp_path / "rows.npy", rows)
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        block = stream_blocks(mapped, 128, devices).load(1)
        assert block.unsafe_buffer_pointer() == mapped[128:].ctypes.data
