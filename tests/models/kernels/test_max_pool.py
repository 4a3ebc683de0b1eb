import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.models.kernels.max_pool import (
    max_pool,
    pool_taps,
    pool_taps_backward,
    pool_windows,
    pool_windows_backward,
)


def by_definition(x, g):
    """Each window's gradient, at the first of its largest values."""
    found = np.zeros_like(x)
    for b, q, r, c in np.ndindex(g.shape):
        rows = range(max(2 * q - 1, 0), min(2 * q + 2, x.shape[1]))
        columns = range(max(2 * r - 1, 0), min(2 * r + 2, x.shape[2]))
        places = [(b, i, j, c) for i in rows for j in columns]
        found[max(places, key=lambda place: x[place])] += g[b, q, r, c]
    return found


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_forms_give_it_to_the_first_of_the_largest(
    batch, height, width, channels, seed
):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        shape = (batch, height, width, channels)
        # Few values: most windows have several that are largest.
        x = rng.integers(-2, 3, shape).astype(np.float64)
        g = rng.standard_normal((batch, -(-height // 2), -(-width // 2), channels))
        given_ = (jnp.asarray(x), jnp.asarray(g))
        expected = by_definition(x, g)
        for form in (pool_taps_backward, pool_windows_backward):
            np.testing.assert_allclose(jax.jit(form)(*given_), expected, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**32 - 1)
)
def test_both_forms_give_the_same_maxima(height, width, seed):
    x = np.random.default_rng(seed).standard_normal((2, height, width, 3), np.float32)
    x[0, -1, -1] = (-np.inf, np.nan, np.inf)
    found, same = (jax.jit(form)(x) for form in (pool_taps, pool_windows))
    np.testing.assert_array_equal(found, same)
    assert np.nanmax(found) == np.inf


def test_pooling_is_no_loop_over_windows_on_a_cpu():
    x = jnp.ones((1, 16, 16, 4))
    pooled = jax.jit(lambda x: max_pool(jax.nn.relu(2 * x)))
    program = pooled.lower(x).compile().as_text()
    assert "reduce-window" not in program


def test_pooling_scatters_nothing_on_a_cpu():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 8, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x) ** 2)))
    assert "scatter" not in gradient.lower(x).as_text()
    pooled = max_pool(x)
    assert pooled.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(
        gradient(x), pool_windows_backward(x, 2 * pooled), rtol=1e-6
    )


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_each_window_gives_to_one_position_whatever_it_holds(value):
    x = jnp.full((1, 5, 6, 1), value)
    g = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 3, 1)), jnp.float32)
    found = pool_taps_backward(x, g)
    np.testing.assert_allclose(found.sum(), g.sum(), rtol=1e-5)


def test_nan_does_not_spread():
    x = jnp.ones((1, 6, 6, 1)).at[0, 0, 0, 0].set(jnp.nan)
    found = pool_taps_backward(x, jnp.ones((1, 3, 3, 1)))
    assert np.isfinite(np.asarray(found)).all()
    assert found.sum() == 9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_window_is_lost_where_xla_computes_its_input_again(dtype):
    """With all optimisations, which other tests turn off to compile faster."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 33, 34, 8)), dtype)
    scale = jnp.asarray(rng.standard_normal(8), dtype)

    def total(shift):
        return jnp.sum(max_pool(jnp.exp(x * scale + shift)).astype(jnp.float32))

    optimised = {"xla_backend_optimization_level": 3}
    zero = jnp.zeros_like(x)
    gradient = jax.jit(jax.grad(total), compiler_options=optimised)(zero)
    # exp is its own derivative: the gradients' sum is the pooled sum itself.
    found = gradient.astype(jnp.float32).sum()
    np.testing.assert_allclose(found, total(zero), rtol=0.01)
