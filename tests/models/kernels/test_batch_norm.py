import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.kernels import batch_norm
from tokret.models.kernels.batch_norm import (
    batch_norm_autodiff,
    batch_norm_fused,
    channel_sums,
)
from tokret.models.layers import BatchNorm

EPSILON = 1e-5


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def given(dtype, shape):
    """Inputs, scale, bias, shift, and a gradient."""
    rng = np.random.default_rng(0)
    channels = shape[-1]
    arrays = (
        rng.normal(1.0, 2.0, shape),
        rng.uniform(0.5, 2, channels),
        rng.standard_normal(channels),
        rng.standard_normal(channels),
        rng.normal(0.5, 1.0, shape),
    )
    return [jnp.asarray(array, dtype) for array in arrays]


def results(form, relu, x, scale, bias, shift, gradient):
    """Outputs, statistics and all gradients but that by the shift, which has none."""
    found, back = jax.vjp(lambda *a: form(*a, EPSILON, relu), x, scale, bias, shift)
    nothing = jnp.zeros_like(scale)
    return [*found, *back((gradient, nothing, nothing))[:3]]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (3, 1), (2, 5, 3), (1, 1, 1, 2)])
def test_both_forms_are_one_function(shape, relu, float64):
    arrays = given(jnp.float64, shape)
    forms = (
        results(form, relu, *arrays) for form in (batch_norm_autodiff, batch_norm_fused)
    )
    for theirs, ours in zip(*forms, strict=True):
        # Of one position nothing varies, and all is divided by the root of epsilon.
        atol = 1e-10 * (1 + np.abs(np.asarray(theirs)).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_float64_inputs_and_float32_parameters(float64):
    """In one program, which both forms are traced for: gradients as parameters are."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 3)))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, train=False)

    @jax.jit
    @jax.grad
    def gradient(params):
        mutable = ["batch_stats"]
        y, _ = norm.apply(
            {**variables, "params": params}, x, train=True, mutable=mutable
        )
        return jnp.sum(y**3)

    found = gradient(variables["params"])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}


def test_in_bfloat16_the_gradient_is_as_exact(float64):
    """The truth is of the same rounded inputs."""
    x, *vectors, gradient = given(jnp.float64, (8, 16, 16, 32))
    low = x.astype(jnp.bfloat16), gradient.astype(jnp.bfloat16)
    single = [vector.astype(jnp.float32) for vector in vectors]
    rounded = low[0], *single, low[1]
    true = results(batch_norm_fused, True, *(a.astype(jnp.float64) for a in rounded))
    ours, theirs = (
        results(f, True, *rounded) for f in (batch_norm_fused, batch_norm_autodiff)
    )
    assert [a.dtype.name for a in ours] == [
        "bfloat16",
        *["float32"] * 2,
        "bfloat16",
    ] + ["float32"] * 2
    for exact, one, other in zip(true, ours, theirs, strict=True):
        exact, one, other = (np.asarray(a, np.float64) for a in (exact, one, other))
        errors = [np.linalg.norm(found - exact) for found in (one, other)]
        assert errors[0] < 1.5 * errors[1] + 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(3, 4), (2, 7, 4), (2, 32, 18, 4), (1, 1, 1, 4)])
def test_sums_of_several_arrays(shape, float64):
    one, two = np.random.default_rng(0).standard_normal((2, *shape))
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(
        channel_sums(jnp.asarray(one), jnp.asarray(two)),
        [one.sum(axes), two.sum(axes)],
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_gpu_takes_sums(monkeypatch):
    """Whichever form: outputs, the statistics that are kept, and a ReLU or none."""
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 6)), jnp.float32)
    norm, taken = BatchNorm(), []
    variables = norm.init(jax.random.key(0), x, train=False)

    def apply(relu):
        return norm.apply(variables, x, train=True, relu=relu, mutable=["batch_stats"])

    plain = [apply(relu) for relu in (True, False)]
    form = batch_norm.batch_norm_fused

    def for_gpu(*operands, cuda, **_):
        taken.append(cuda)
        return cuda(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", for_gpu)
    monkeypatch.setattr(
        batch_norm, "batch_norm_fused", lambda *a: taken.append(form) or form(*a)
    )
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, atol=1e-5),
        plain,
        [apply(relu) for relu in (True, False)],
    )
    assert taken.count(form) == 2
    assert np.asarray(plain[0][0]).min() == 0 > np.asarray(plain[1][0]).min()
