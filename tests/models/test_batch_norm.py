import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.layers import BatchNorm, l2_normalise


def test_training_keeps_the_unbiased_variance():
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 3)).astype(np.float32)
    norm = BatchNorm(momentum=0.9)
    variables = norm.init(jax.random.key(0), jnp.asarray(x), train=False)
    y, after = norm.apply(
        variables, jnp.asarray(x), train=True, mutable=["batch_stats"]
    )
    flat = x.reshape(-1, 3)
    expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    kept = after["batch_stats"]
    np.testing.assert_allclose(kept["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_large_means_do_not_cancel_once_they_are_known():
    x = np.random.default_rng(0).normal(1e4, 0.1, (4096, 1)).astype(np.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.asarray(x), train=False)
    variables["batch_stats"]["mean"] = jnp.array([1e4])
    y, _ = norm.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
    assert abs(float(jnp.std(y)) - 1) < 0.01


def test_evaluation_uses_running_statistics_and_initialising_keeps_them():
    x = np.full((2, 3), 7.0, np.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.asarray(x), train=True)
    assert not variables["batch_stats"]["mean"].any()
    y = norm.apply(variables, jnp.asarray(x), train=False)
    np.testing.assert_allclose(y, x, rtol=1e-4)


def test_normalising_nothing_gives_nothing_and_a_finite_gradient():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(l2_normalise(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    grad = jax.grad(lambda v: l2_normalise(v)[1].sum())(x)
    assert np.isfinite(grad).all()
