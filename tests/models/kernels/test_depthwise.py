import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tokret.models.kernels.depthwise import (
    depthwise,
    grouped_convolution,
    shifted_products,
)
from tokret.models.trunks.convolutions import DepthwiseConv


def _inputs(height, width, side, dtype=np.float64):
    rng = np.random.default_rng(height * width + side)
    x = rng.normal(size=(2, height, width, 3))
    return jnp.asarray(x, dtype), jnp.asarray(
        rng.normal(size=(side, side, 1, 3)), dtype
    )


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (5, 3)])
def test_every_form_gives_the_same_outputs_and_gradients(side, stride):
    @functools.partial(jax.jit, static_argnums=0)
    def run(form, x, kernel):
        # custom_vjp takes its argument without gradient by position.
        y, pull = jax.vjp(lambda *a: form(*a, stride), x, kernel)
        return y, *pull(jnp.cos(y))

    with jax.enable_x64(True):
        for height, width in ((6, 9), (11, 8)):
            x, kernel = _inputs(height, width, side)
            expected = run(grouped_convolution, x, kernel)
            for form in (depthwise, shifted_products):
                for found, true in zip(run(form, x, kernel), expected, strict=True):
                    np.testing.assert_allclose(found, true, rtol=1e-12, atol=1e-12)


def test_under_jit_and_vmap():
    with jax.enable_x64(True):
        x, kernel = _inputs(9, 8, 3)
        kernels = jnp.stack([kernel, 2 * kernel])

        def loss(form, x, kernel):
            return jnp.sum(jnp.sin(form(x, kernel, 2)))

        def per_kernel(form):
            gradient = jax.grad(functools.partial(loss, form), argnums=(0, 1))
            return jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(x, kernels)

        pairs = zip(per_kernel(depthwise), per_kernel(grouped_convolution), strict=True)
        for found, true in pairs:
            np.testing.assert_allclose(found, true, rtol=1e-12, atol=1e-12)


def test_each_platform_is_given_its_own_form():
    def step(x, kernel):
        return jax.value_and_grad(lambda *a: depthwise(*a, 2).sum(), (0, 1))(x, kernel)

    def lowered(*platforms):
        return jax.export.export(jax.jit(step), platforms=platforms)(x, kernel)

    x, kernel = _inputs(9, 9, 3, np.float32)
    for platform, convolutions in (("cpu", 0), ("cuda", 3), ("tpu", 3)):
        # The forward one, and those to the inputs and the kernel.
        text = lowered(platform).mlir_module()
        assert text.count("stablehlo.convolution") == convolutions
    for_all = lowered("cpu", "cuda", "tpu")
    assert "stablehlo.convolution" in for_all.mlir_module()
    for found, true in zip(
        jax.tree.leaves(for_all.call(x, kernel)),
        jax.tree.leaves(step(x, kernel)),
        strict=True,
    ):
        np.testing.assert_allclose(found, true, rtol=1e-5)


def test_the_kernel_is_laid_out_as_flaxs_grouped_convolution_has_it():
    ours = DepthwiseConv(3, 2, jnp.float32)
    theirs = nn.Conv(
        3, (3, 3), (2, 2), padding="VALID", use_bias=False, feature_group_count=3
    )
    x, _ = _inputs(9, 8, 3, np.float32)
    variables = theirs.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5
    )
    kernel = DepthwiseConv(5, 1, jnp.float32).init(
        jax.random.key(0), jnp.zeros((1, 5, 5, 4096))
    )["params"]["kernel"]
    assert kernel.shape == (5, 5, 1, 4096)
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / 25), rtol=0.01)


def test_bfloat16_sums_in_float32():
    x, kernel = _inputs(12, 12, 5, np.float32)
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in (x, kernel))
    found, pull = jax.vjp(lambda *a: depthwise(*a, 1), x, kernel)
    true, exact_pull = jax.vjp(
        lambda *a: depthwise(*a, 1), x.astype(jnp.float32), kernel.astype(jnp.float32)
    )
    ones = jnp.ones_like(true)
    results = (found, *pull(ones.astype(jnp.bfloat16)))
    for one, exact in zip(results, (true, *exact_pull(ones)), strict=True):
        assert one.dtype == jnp.bfloat16
        # bfloat16 keeps 8 bits: half a last place is 2 ** -9 of the value.
        np.testing.assert_allclose(
            one.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6
        )
