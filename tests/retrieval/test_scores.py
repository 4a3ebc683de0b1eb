import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.retrieval import scores


def drawn(queries=5, rows=64, dims=300):
    rng = np.random.default_rng(0)
    asked = rng.standard_normal((queries, dims)).astype(np.float32)
    block = jnp.asarray(rng.standard_normal((rows, dims)), jnp.bfloat16)
    return asked, block


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_three_parts_of_a_query_are_all_of_it(scale):
    """What a GPU computes: as exact as float32 products are."""
    asked, block = drawn()
    asked *= np.float32(scale)
    true = asked.astype(np.float64) @ np.asarray(block, np.float64).T
    found = np.asarray(jax.jit(scores._in_three_parts)(asked, block), np.float64)
    lengths = np.linalg.norm(asked.astype(np.float64), axis=1, keepdims=True)
    lengths = lengths * np.linalg.norm(np.asarray(block, np.float64), axis=1)
    assert (np.abs(found - true) / lengths).max() < 2e-7
    rounded = jnp.asarray(asked).astype(jnp.bfloat16)  # as one part would be
    one = np.asarray(rounded, np.float64) @ np.asarray(block, np.float64).T
    assert (np.abs(one - true) / lengths).max() > 2e-5


def test_what_is_infinite_stays_so():
    asked, block = drawn()
    asked[0, 0], asked[1, 0] = np.inf, -np.inf
    found = np.asarray(scores._in_three_parts(jnp.asarray(asked), block))
    sign = np.sign(np.asarray(block, np.float32)[:, 0])
    assert (found[0] == np.inf * sign).all() and (found[1] == -np.inf * sign).all()
    assert np.isfinite(found[2:]).all()
