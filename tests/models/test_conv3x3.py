import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from tokret.models.conv3x3 import (
    Conv3x3,
    convolve,
    gradient_by_convolution,
    gradient_by_products,
    products_pay,
)
from tokret.training.sharding import make_mesh

FORMS = {"products": gradient_by_products, "convolution": gradient_by_convolution}


def pair(dtype, shape, channels, stride, seed=0):
    """A map, and what a gradient of its convolution may be."""
    rng = np.random.default_rng(seed)
    batch, height, width, _ = shape
    after = (batch, -(-height // stride), -(-width // stride), channels)
    drawn = (rng.standard_normal(shape), rng.standard_normal(after))
    return [jnp.asarray(array.astype(dtype)) for array in drawn]


def by_definition(x, g, stride):
    """The sum over positions of what each tap met, times the gradient there."""
    x, g = np.asarray(x), np.asarray(g)
    _, height, width, _ = g.shape
    x = np.pad(x, ((0, 0), (1, stride), (1, stride), (0, 0)))
    return np.stack(
        [
            [
                np.einsum(
                    "bhwc,bhwd->cd",
                    x[:, i::stride, j::stride][:, :height, :width],
                    g,
                )
                for j in range(3)
            ]
            for i in range(3)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    stride=st.sampled_from([1, 2]),
    form=st.sampled_from(sorted(FORMS)),
)
def test_both_forms_are_the_kernels_gradient(
    batch, height, width, channels, stride, form
):
    with jax.enable_x64(True):
        x, g = pair(np.float64, (batch, height, width, 3), channels, stride)
        found = FORMS[form](x, g, stride=stride)
        np.testing.assert_allclose(found, by_definition(x, g, stride), atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_step_takes_products_and_gives_the_derived_gradients(stride):
    x, g = pair(np.float32, (2, 32 * stride, 32 * stride, 64), 64, stride)
    kernel = jnp.asarray(
        np.random.default_rng(1).standard_normal((3, 3, 64, 64)), jnp.float32
    )
    assert products_pay(x, g)
    forward = functools.partial(convolve, stride=stride)
    found = jax.jit(lambda x, k, g: jax.vjp(forward, x, k)[1](g)).lower(x, kernel, g)
    assert found.as_text().count("stablehlo.dot_general") == 3
    to_x, to_kernel = found.compile()(x, kernel, g)
    expected = gradient_by_convolution(x, g, stride=stride)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(to_kernel, expected, atol=1e-5 * scale)
    plain = jax.vjp(
        lambda x: jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        x,
    )[1](g)[0]
    np.testing.assert_allclose(to_x, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize(
    ("shape", "channels", "dtype", "pays"),
    [
        ((2, 32, 32, 64), 64, "float32", True),
        ((2, 32, 31, 64), 64, "float32", False),
        ((2, 32, 32, 32), 64, "float32", False),
        ((2, 32, 32, 64), 32, "float32", False),
        ((2, 32, 32, 64), 64, "bfloat16", False),
        ((2, 32, 32, 64), 64, "float64", True),
    ],
)
def test_products_are_for_wide_layers_of_many_positions(shape, channels, dtype, pays):
    with jax.enable_x64(True):
        x = jnp.zeros(shape, dtype)
        assert products_pay(x, jnp.zeros((*shape[:3], channels), dtype)) == pays


def test_training_convolves_as_xla_does_and_inference_by_tiles():
    x, _ = pair(np.float32, (1, 16, 16, 128), 128, 1)
    module = Conv3x3(128, jnp.float32)
    variables = module.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 128, 128)
    trained, used = (module.apply(variables, x, train=t) for t in (True, False))
    np.testing.assert_array_equal(trained, convolve(x, kernel, 1))
    assert not np.array_equal(trained, used)
    np.testing.assert_allclose(used, trained, atol=2e-5)


@pytest.mark.parametrize("train", [True, False])
def test_a_stride_leaves_every_other_position(train):
    x, _ = pair(np.float32, (1, 17, 16, 8), 4, 1)
    strided, whole = (Conv3x3(4, jnp.float32, stride) for stride in (2, 1))
    variables = whole.init(jax.random.key(0), x, train=train)
    expected = whole.apply(variables, x, train=train)[:, ::2, ::2]
    found = strided.apply(variables, x, train=train)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_photos_split_over_devices_meet_once(stride):
    """Each device sums up its own photos; the sums, not the photos, are exchanged."""
    x, g = pair(np.float32, (8, 9, 6, 4), 4, stride)
    mesh = make_mesh(jax.devices(), data=8, model=1)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    form = functools.partial(gradient_by_products, stride=stride)
    split = jax.jit(form, out_shardings=whole)
    program = split.lower(*jax.device_put((x, g), rows)).compile()
    assert "all-gather" not in program.as_text()
    assert "all-reduce" in program.as_text()
    found = program(*jax.device_put((x, g), rows))
    np.testing.assert_allclose(found, by_definition(x, g, stride), atol=1e-4)
