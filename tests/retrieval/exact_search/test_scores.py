import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval.exact_search import scores
from tokret.runtime.processor import multiplies_bfloat16


def drawn(count=5, rows=64, dims=300):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((count, dims)).astype(np.float32)
    block = jnp.asarray(rng.standard_normal((rows, dims)), jnp.bfloat16)
    return queries, block


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_three_parts_of_a_query_are_all_of_it(scale):
    """What a GPU computes: as exact as float32 products are."""
    queries, block = drawn()
    queries *= np.float32(scale)
    true = queries.astype(np.float64) @ np.asarray(block, np.float64).T
    found = np.asarray(jax.jit(scores._in_three_parts)(queries, block), np.float64)
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    lengths = lengths * np.linalg.norm(np.asarray(block, np.float64), axis=1)
    assert (np.abs(found - true) / lengths).max() < 2e-7
    rounded = jnp.asarray(queries).astype(jnp.bfloat16)  # as one part would be
    one = np.asarray(rounded, np.float64) @ np.asarray(block, np.float64).T
    assert (np.abs(one - true) / lengths).max() > 2e-5


def test_what_is_infinite_stays_so():
    queries, block = drawn()
    queries[0, 0], queries[1, 0] = np.inf, -np.inf
    found = np.asarray(scores._in_three_parts(jnp.asarray(queries), block))
    sign = np.sign(np.asarray(block, np.float32)[:, 0])
    assert (found[0] == np.inf * sign).all() and (found[1] == -np.inf * sign).all()
    assert np.isfinite(found[2:]).all()
    queries, block = drawn()
    found = np.asarray(
        scores._in_three_parts(jnp.asarray(queries), block.at[3, 0].set(jnp.inf))
    )
    assert (found[:, 3] == np.inf * np.sign(queries[:, 0])).all()
    assert np.isfinite(np.delete(found, 3, axis=1)).all()


def scorer(monkeypatch, units):
    """block_scores as a processor with or without units for bfloat16 has it."""
    monkeypatch.setattr(scores, "multiplies_bfloat16", lambda: units)
    block_scores = inspect.unwrap(scores.block_scores)
    return jax.jit(lambda queries, block: block_scores(queries, block))


@pytest.mark.parametrize("dims", [64, 2049])
@pytest.mark.parametrize(("count", "rows"), [(1, 128), (3, 100), (70, 384)])
@pytest.mark.parametrize("units", [True, False])
def test_int8_is_exact(monkeypatch, units, count, rows, dims):
    rng = np.random.default_rng(1)
    queries, block = (
        rng.integers(-127, 128, (n, dims), np.int8) for n in (count, rows)
    )
    queries[0], block[0] = 127, 127  # the largest sum there is
    found = scorer(monkeypatch, units)(queries, jnp.asarray(block))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, queries.astype(int) @ block.T.astype(int))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_is_searched_in_float32(monkeypatch, units, count):
    queries, block = drawn(count, rows=256)
    block = block.at[7].set(jnp.nan)
    found = np.asarray(scorer(monkeypatch, units)(queries, block))
    assert (found[:, 7] == np.finfo(np.float32).min).all()
    true = queries.astype(np.float64) @ np.asarray(block, np.float64).T
    true[:, 7] = found[:, 7]
    # Sums of 300 products; one bfloat16 a query would be wrong by a hundred times that.
    np.testing.assert_allclose(found, true, rtol=1e-6, atol=3e-5)


def test_a_cpu_with_units_for_bfloat16_uses_them(monkeypatch):
    queries, block = drawn(5, rows=256)
    programs = [
        scorer(monkeypatch, units).lower(queries, block).compile().as_text()
        for units in (True, False)
    ]
    assert ["bf16[15,300]" in program for program in programs] == [True, False]
    if multiplies_bfloat16():  # else XLA has no units to give it to
        assert "f32[256,300]" not in programs[0]  # the block as it is


def test_a_cpu_widens_a_tile_of_bfloat16_at_a_time(monkeypatch):
    queries, block = drawn(5, rows=2048)
    program = scorer(monkeypatch, False).lower(queries, block).compile()
    assert "f32[512,300]" in program.as_text()
    # XLA makes all of a bfloat16 array float32 where it slices it.
    assert "f32[4,512,300]" not in program.as_text()
    wide = jax.jit(scores._widened)(queries, block)
    np.testing.assert_array_equal(program(queries, block), wide)
