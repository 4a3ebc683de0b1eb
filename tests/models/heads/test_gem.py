import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.heads.gem import GeMHead, generalised_mean


def test_the_power_leads_from_the_mean_to_the_maximum():
    x = jax.random.uniform(jax.random.key(0), (2, 3, 4, 5), minval=0.1, maxval=60000.0)
    mean = generalised_mean(x, None, 1.0)
    np.testing.assert_allclose(mean, x.mean((1, 2)), rtol=1e-5)
    # 60,000^3 overflows float16, 60,000^1000 everything.
    for dtype, close in ((jnp.float32, 1e-2), (jnp.bfloat16, 2e-2)):
        most = generalised_mean(x.astype(dtype), None, 1000.0)
        assert most.dtype == jnp.float32
        np.testing.assert_allclose(most, x.max((1, 2)), rtol=close)


def test_the_gradient_is_the_plain_formulas():
    def plain(x):
        powers = jnp.maximum(x, 1e-6) ** 3.0
        return jnp.sum(jnp.sin(powers.mean((1, 2)) ** (1 / 3.0)))

    def ours(x):
        return jnp.sum(jnp.sin(generalised_mean(x, None, 3.0)))

    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5), jnp.float64)
        values = [jax.jit(jax.value_and_grad(f))(x) for f in (ours, plain)]
        np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-12)
        np.testing.assert_allclose(values[0][1], values[1][1], atol=1e-12)


def test_padding_is_not_pooled_and_dead_channels_have_gradients():
    x = jnp.zeros((1, 3, 3, 2)).at[0, :2, :1].set(jnp.array([2.0, 0.0]))
    outside = x.at[:, 2].set(jnp.nan).at[:, :, 1:].set(jnp.inf)
    sizes = jnp.array([[2, 1]])
    pooled, grad = jax.value_and_grad(
        lambda x: generalised_mean(x, sizes, 3.0)[0, 0].sum()
    )(outside)
    assert float(pooled) == pytest.approx(2.0)
    inside = np.asarray(grad)[0, :2, :1]
    np.testing.assert_allclose(inside[..., 0], 0.5, rtol=1e-6)
    assert np.isfinite(np.asarray(grad)).all()


def test_without_whitening_there_is_nothing_to_learn():
    x = jnp.ones((1, 2, 2, 6))
    head = GeMHead(whiten=False)
    assert not head.init(jax.random.key(0), x, train=False)
    assert head.apply({}, x, train=False)[0].shape == (1, 6)
    whitened = GeMHead(dim=4).init(jax.random.key(0), x, train=False)
    assert whitened["params"]["whiten"]["kernel"].shape == (6, 4)
