import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tokret.models import widening
from tokret.models.resnet import ResNet
from tokret.models.widening import by_moments, by_outputs

EPSILON = 1e-5


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def given(dtype, shape=(4, 6, 5, 7), channels=16, seed=0):
    """What a batch norm after a convolution is given, and a gradient."""
    rng = np.random.default_rng(seed)
    arrays = (
        np.maximum(rng.standard_normal(shape), 0),
        rng.standard_normal((1, 1, shape[-1], channels)),
        rng.uniform(0.5, 2, channels),
        rng.standard_normal(channels),
        rng.standard_normal((*shape[:-1], channels)),
    )
    return [jnp.asarray(array, dtype) for array in arrays]


def results(form, x, kernel, scale, bias, gradient):
    """Outputs, statistics and all gradients."""
    found, back = jax.vjp(form, x, kernel, scale, bias)
    nothing = jnp.zeros_like(scale)
    return [*found, *back((gradient, nothing, nothing))]


@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (1, 1, 3, 2), (2, 1, 1, 4)])
def test_both_forms_are_one_function(shape, float64):
    arrays = given(jnp.float64, shape)
    shift = jnp.full(16, 0.3)
    outputs = results(lambda *a: by_outputs(*a, shift, EPSILON), *arrays)
    moments = results(lambda *a: by_moments(*a, EPSILON), *arrays)
    for theirs, ours in zip(outputs, moments, strict=True):
        largest = np.abs(np.asarray(theirs)).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-10 * (1 + largest))


def test_a_channel_that_never_varies(float64):
    x, kernel, scale, bias, gradient = given(jnp.float64)
    kernel = kernel.at[..., 3].set(0)
    found = results(
        lambda *a: by_moments(*a, EPSILON), x, kernel, scale, bias, gradient
    )
    assert all(np.isfinite(array).all() for array in found)
    np.testing.assert_allclose(found[0][..., 3], bias[3])
    assert found[2][3] == 0


def test_in_float32_it_is_as_exact_as_the_other_form(float64):
    exact = results(lambda *a: by_moments(*a, EPSILON), *given(jnp.float64))
    arrays = given(jnp.float32)
    shift = jnp.zeros(16, jnp.float32)
    ours = results(lambda *a: by_moments(*a, EPSILON), *arrays)
    others = results(lambda *a: by_outputs(*a, shift, EPSILON), *arrays)
    for true, one, other in zip(exact, ours, others, strict=True):
        errors = [np.abs(np.asarray(found) - true).max() for found in (one, other)]
        assert errors[0] < 3 * errors[1] + 1e-6 * np.abs(np.asarray(true)).max()


def test_bfloat16_comes_out_as_it_went_in(float64):
    x, kernel, scale, bias, gradient = given(jnp.float32, (4, 8, 8, 16), 64)
    low = [array.astype(jnp.bfloat16) for array in (x, kernel)]
    form = functools.partial(by_moments, epsilon=EPSILON)
    found = results(
        lambda *a: form(*a), *low, scale, bias, gradient.astype(low[0].dtype)
    )
    assert [array.dtype.name for array in found] == [
        *("bfloat16", "float32", "float32"),
        *("bfloat16", "bfloat16", "float32", "float32"),
    ]
    exact = results(
        lambda *a: form(*a),
        *(array.astype(jnp.float64) for array in (*low, scale, bias)),
        gradient.astype(low[0].dtype).astype(jnp.float64),
    )
    for ours, true in zip(found, exact, strict=True):
        off = np.linalg.norm(np.asarray(ours, np.float64) - true)
        assert off < 0.01 * np.linalg.norm(true)


def test_a_trunk_is_the_same_either_way(float64, monkeypatch):
    """What a TPU trains, computed here: outputs, gradients, running statistics."""
    trunk = ResNet((1, 1), width=4, dtype=jnp.float64)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((3, 33, 32, 3)))
    variables = trunk.init(jax.random.key(0), images, train=False)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    def loss(params):
        (features, _, _), after = trunk.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(features**3), after["batch_stats"]

    gradient = jax.value_and_grad(loss, has_aux=True)
    plain = gradient(variables["params"])
    calls = []

    def for_tpu(*operands, tpu, default):
        calls.append(default)
        return tpu(*operands)

    monkeypatch.setattr(widening.jax.lax, "platform_dependent", for_tpu)
    other = gradient(variables["params"])
    assert calls  # the TPU's branches were taken
    for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        largest = np.abs(np.asarray(one)).max()
        np.testing.assert_allclose(two, one, atol=1e-9 * (1 + largest))


def test_statistics_are_those_of_the_whole_batch():
    devices = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    arrays = given(jnp.float32, (8, 3, 3, 6))
    rows = NamedSharding(devices, PartitionSpec("data"))
    split = [
        jax.device_put(array, rows) if i in (0, 4) else array
        for i, array in enumerate(arrays)
    ]
    form = jax.jit(lambda *a: results(lambda *b: by_moments(*b, EPSILON), *a))
    for one, many in zip(form(*arrays), form(*split), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-4)
