import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tokret.models.kernels import matmul
from tokret.models.kernels.matmul import conv1x1, project
from tokret.models.layers import PointwiseConv
from tokret.training.utilisation import product_flop


@pytest.fixture(autouse=True)
def doubles():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("n", "c", "d"), [(4, 3, 7), (4, 7, 3), (40, 7, 3), (4, 5, 5)])
def test_gradients_are_those_that_jax_derives(n, c, d):
    rng = np.random.default_rng(0)
    x, matrix, seen = (
        jnp.asarray(rng.standard_normal(shape))
        for shape in ((2, n, c), (c, d), (2, n, d))
    )
    outputs, back = jax.vjp(project, x, matrix)
    expected, derived = jax.vjp(jnp.matmul, x, matrix)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    for ours, theirs in zip(back(seen), derived(seen), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_bfloat16_is_rounded_once():
    rng = np.random.default_rng(3)
    x, matrix = (
        jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)
        for shape in ((2, 9, 300), (300, 7))
    )
    true = np.asarray(x, np.float64) @ np.asarray(matrix, np.float64)
    found = jax.jit(project)(x, matrix)
    assert found.dtype == jnp.bfloat16
    # Half of a step of its 8 bits, and what sums in float32 are wrong by.
    allowed = 2**-8 * np.abs(true) + 1e-4
    assert (np.abs(np.asarray(found, np.float64) - true) <= allowed).all()
    _, back = jax.vjp(project, x, matrix)
    assert [g.dtype for g in back(found)] == [jnp.bfloat16, jnp.bfloat16]


def test_a_gradient_costs_two_products():
    both = jax.grad(lambda x, m: jnp.sum(project(x, m) ** 2), argnums=(0, 1))
    counted = jax.make_jaxpr(both)(jnp.ones((2, 5, 3)), jnp.ones((3, 7)))
    assert product_flop(counted.jaxpr) == 3 * 2 * (2 * 5) * 3 * 7


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 4), (2, 5)])
def test_a_pointwise_convolution_is_a_convolution(stride, side):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, side, side, 3)))
    ours = PointwiseConv(
        4, jnp.float64, stride, nn.initializers.normal(), True, nn.initializers.ones
    )
    theirs = nn.Conv(
        *(4, (1, 1), (stride, stride)),
        dtype=jnp.float64,
        kernel_init=nn.initializers.normal(),
        bias_init=nn.initializers.ones,
    )
    variables = ours.init(jax.random.key(0), x)
    drawn = theirs.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(drawn, x), rtol=1e-12
    )


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 4), (2, 5)])
def test_every_devices_form_has_the_same_gradients(stride, side):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, side, side, 3)))
    kernel = jnp.asarray(rng.standard_normal((1, 1, 3, 4)))

    def of(form):
        outputs, back = jax.vjp(form, x, kernel)
        return outputs, *back(jnp.sin(outputs))

    products = of(lambda x, kernel: conv1x1(x, kernel, stride))
    convolutions = of(functools.partial(matmul.convolve, stride=stride))
    for ours, theirs in zip(products, convolutions, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_devices_form_is_counted():
    def total(x, kernel):
        return jnp.sum(conv1x1(x, kernel, 1) ** 2)

    counted = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(
        jnp.ones((2, 5, 5, 3)), jnp.ones((1, 1, 3, 7))
    )
    assert product_flop(counted.jaxpr) == 3 * 2 * (2 * 5 * 5) * 3 * 7
