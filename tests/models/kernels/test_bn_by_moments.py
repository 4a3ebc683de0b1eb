import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.kernels import bn_by_moments as moments_module
from tokret.models.kernels.bn_by_moments import bn_by_moments, bn_grad_by_moments
from tokret.models.kernels.expand_conv_bn import conv_bn_by_outputs
from tokret.runtime.compiler_options import training_options

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

    def all_of(*arrays):
        found, back = jax.vjp(form, *arrays)
        nothing = jnp.zeros_like(scale)
        return [*found, *back((gradient, nothing, nothing))]

    # As one program: what is added to a product is added before that is rounded.
    options = training_options(jax.default_backend())
    return jax.jit(all_of, compiler_options=options)(x, kernel, scale, bias)


def moments(*arrays):
    return results(lambda *a: bn_by_moments(*a, EPSILON), *arrays)


def outputs(*arrays, form=conv_bn_by_outputs):
    shift = jnp.full(arrays[2].shape, 0.3, arrays[2].dtype)
    return results(lambda *a: form(*a, shift, EPSILON), *arrays)


# A TPU's form and a GPU's.
FORMS = [moments, functools.partial(outputs, form=bn_grad_by_moments)]


@pytest.mark.parametrize(
    "shape", [(4, 6, 5, 7), (1, 1, 3, 2), (2, 1, 1, 4), (1, 1, 1, 3)]
)
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one_function(form, shape, float64):
    arrays = given(jnp.float64, shape)
    for theirs, ours in zip(outputs(*arrays), form(*arrays), strict=True):
        # Of one position nothing varies, and all is divided by the root of epsilon.
        atol = 1e-10 * (1 + np.abs(np.asarray(theirs)).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_a_batch_that_never_varies(float64):
    x, kernel, scale, bias, gradient = given(jnp.float64)
    same = jnp.broadcast_to(x[:1, :1, :1], x.shape)
    found = moments(same, kernel, scale, bias, gradient)
    np.testing.assert_allclose(found[0], jnp.broadcast_to(bias, found[0].shape), 1e-9)
    np.testing.assert_allclose(found[2], 0, atol=1e-12)
    # In bfloat16 too: outputs are not rounded before the mean is taken off.
    low = [array.astype(jnp.bfloat16) for array in (same, kernel)]
    single = [array.astype(jnp.float32) for array in (scale, bias)]
    y = bn_by_moments(*low, *single, EPSILON)[0]
    off = np.abs(np.asarray(y, np.float64) - np.asarray(bias)).max()
    assert off < 0.02 * np.abs(bias).max()


def test_two_parts_of_a_vector_are_more_than_one():
    """In one program, in which XLA removes rounding that looks unnecessary."""
    vector = jnp.asarray(np.random.default_rng(0).standard_normal(99), jnp.float32)
    split = jax.jit(lambda v: moments_module._split(v, jnp.dtype("bfloat16")))
    most, rest = (np.asarray(part, np.float64) for part in split(vector))
    np.testing.assert_allclose(most, vector, rtol=2**-8)
    assert np.abs(most / np.asarray(vector) - 1).max() > 2**-10
    np.testing.assert_allclose(most + rest, vector, rtol=2**-16)


def add_wide(*arrays):
    """As cuBLAS adds: a CPU's programs round after every operation."""
    wide = (array.astype(jnp.float32) for array in arrays)
    return moments_module._combine_products(*wide).astype(arrays[0].dtype)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_bfloat16_errors_are_those_of_the_other_form(
    form, spread, float64, monkeypatch
):
    """The truth is of the same rounded inputs; `spread` is deviation over mean."""
    if jax.default_backend() == "cpu":
        adding = moments_module.GPU_PRODUCTS._replace(combine=add_wide)
        monkeypatch.setattr(moments_module, "GPU_PRODUCTS", adding)
    x, kernel, scale, bias, gradient = given(jnp.float64, (16, 16, 8, 32), 128)
    x = 1 + spread * (x - x.mean())
    # Gradients as they are: with a mean, and going along with the outputs.
    gradient = gradient + 0.5 + 0.1 * jnp.einsum("bhwc,xycd->bhwd", x, kernel)
    low = [array.astype(jnp.bfloat16) for array in (x, kernel, gradient)]
    single = [array.astype(jnp.float32) for array in (scale, bias)]
    rounded = (low[0], low[1], *single, low[2])
    true = moments(*(array.astype(jnp.float64) for array in rounded))
    mask = np.random.default_rng(1).random(x.shape) < 0.5  # a ReLU's, before
    names = ("y", "mean", "var", "x", "kernel", "scale", "bias")
    ours, theirs = form(*rounded), outputs(*rounded)
    assert [array.dtype.name for array in ours] == [
        *("bfloat16", "float32", "float32"),
        *("bfloat16", "bfloat16", "float32", "float32"),
    ]
    for name, exact, one, other in zip(names, true, ours, theirs, strict=True):
        exact, one, other = (np.asarray(a, np.float64) for a in (exact, one, other))
        pairs = [(exact, one, other)]
        if name == "x":  # what the batch norm before sums up
            pairs.append(tuple((a * mask).sum((0, 1, 2)) for a in pairs[0]))
        for exact, one, other in pairs:
            size = np.linalg.norm(exact)
            errors = [np.linalg.norm(found - exact) / size for found in (one, other)]
            assert errors[0] < 2 * errors[1] + 1e-5, (name, errors)
