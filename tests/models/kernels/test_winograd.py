import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from tokret.models.kernels.winograd import (
    direct_conv3x3,
    winograd_conv3x3,
    winograd_pays,
)
from tokret.models.trunks.convolutions import Conv
from tokret.training.sharding import make_mesh


def pair(dtype, shape, channels, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    kernel = rng.standard_normal((3, 3, shape[-1], channels)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(kernel)


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
)
def test_tiles_give_the_convolution(batch, height, width, channels):
    with jax.enable_x64(True):
        x, kernel = pair(np.float64, (batch, height, width, channels), 3)
        expected = direct_conv3x3(x, kernel)
        np.testing.assert_allclose(winograd_conv3x3(x, kernel), expected, atol=1e-13)


def test_rounding_is_that_of_float32():
    x, kernel = pair(np.float32, (2, 12, 10, 128), 128)
    expected = np.asarray(direct_conv3x3(x, kernel))
    error = np.abs(winograd_conv3x3(x, kernel) - expected).max()
    assert 0 < error < 3e-6 * np.abs(expected).max()


def test_padding_does_not_reach_an_image():
    """Zeros of a canvas are the border of a photo, also where its sides are odd."""
    x, kernel = pair(np.float32, (1, 11, 7, 8), 8)
    canvas = jnp.pad(x, ((0, 0), (0, 6), (0, 9), (0, 0)))
    alone, within = winograd_conv3x3(x, kernel), winograd_conv3x3(canvas, kernel)
    np.testing.assert_allclose(within[:, :11, :7], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "channels", "dtype", "pays"),
    [
        ((1, 16, 16, 128), 128, "float32", True),
        ((1, 16, 15, 128), 128, "float32", True),
        ((1, 16, 14, 128), 128, "float32", False),
        ((8, 16, 16, 64), 128, "float32", False),
        ((8, 16, 16, 128), 64, "float32", False),
        ((8, 16, 16, 128), 128, "bfloat16", False),
    ],
)
def test_tiles_are_for_wide_layers_of_many_positions(shape, channels, dtype, pays):
    assert winograd_pays(jnp.zeros(shape, dtype), channels) == pays


def test_training_convolves_as_xla_does():
    x, _ = pair(np.float32, (1, 16, 16, 128), 128)
    module = Conv(128, 3, 1, jnp.float32)
    variables = module.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 128, 128)
    trained, used = (module.apply(variables, x, train=t) for t in (True, False))
    np.testing.assert_array_equal(trained, direct_conv3x3(x, kernel))
    assert not np.array_equal(trained, used)
    np.testing.assert_allclose(used, trained, atol=2e-5)


def test_photos_split_over_devices_stay_where_they_are():
    x, kernel = pair(np.float32, (8, 9, 6, 4), 4)
    mesh = make_mesh(jax.devices(), data=8, model=1)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    split = jax.jit(winograd_conv3x3, out_shardings=rows)
    arguments = jax.device_put(x, rows), kernel
    assert "all-" not in split.lower(*arguments).compile().as_text()
    np.testing.assert_allclose(split(*arguments), direct_conv3x3(x, kernel), atol=1e-5)
