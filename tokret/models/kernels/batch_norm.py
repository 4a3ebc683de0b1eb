"""Batch normalisation by the batch's own statistics, and the ReLU after it."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import statistics_dtype
from tokret.shapes import Array, Float

Vector = Float[Array, " c"]
Vectors = Float[Array, "... c"]
Batch = Float[Array, "b ... c"]
# Outputs, and the mean and biased variance of the inputs.
Normalised = tuple[Float[Array, "... d"], Float[Array, " d"], Float[Array, " d"]]


def normalise(
    x: Vectors, scale: Vector, bias: Vector, mean: Vector, var: Vector, epsilon: float
) -> Vectors:
    """Returns scale * (x - mean) / sqrt(var + epsilon) + bias, in the dtype of `x`."""
    factor = scale * jax.lax.rsqrt(var + epsilon)
    y = x.astype(statistics_dtype(x)) * factor + (bias - mean * factor)
    return y.astype(x.dtype)


def batch_norm(
    x: Batch, scale: Vector, bias: Vector, shift: Vector, epsilon: float, relu: bool
) -> Normalised:
    """Normalises by the inputs' mean and biased variance over all axes but the last.

    Sums are taken about `shift`, the running mean, so that the difference of two large
    numbers does not cancel once training is under way.

    Returns outputs, in the dtype of `x`; and the mean and variance of `x`, in float32
    or wider, through which no gradient flows on a GPU.
    """
    result: Normalised = jax.lax.platform_dependent(
        *(x, scale, bias, shift),
        cuda=lambda *arrays: batch_norm_fused(*arrays, epsilon, relu),
        default=functools.partial(batch_norm_autodiff, epsilon=epsilon, relu=relu),
    )
    return result


def batch_norm_autodiff(
    x: Batch, scale: Vector, bias: Vector, shift: Vector, epsilon: float, relu: bool
) -> Normalised:
    """`batch_norm` in one pass over memory; the gradient is derived by JAX."""
    wide = x.astype(statistics_dtype(x))
    axes = tuple(range(x.ndim - 1))
    shift = jax.lax.stop_gradient(shift)
    centred = wide - shift
    offset = jnp.mean(centred, axes)
    var = jnp.mean(jnp.square(centred), axes) - jnp.square(offset)
    mean, var = shift + offset, jnp.maximum(var, 0.0)
    y = normalise(x, scale, bias, mean, var, epsilon)
    return nn.relu(y) if relu else y, mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_norm_fused(
    x: Batch, scale: Vector, bias: Vector, shift: Vector, epsilon: float, relu: bool
) -> Normalised:
    """`batch_norm` for a GPU, whose gradient keeps nothing but the inputs.

    As JAX derives it, XLA also keeps the rectified outputs or the masked gradient, and
    sums up each statistic in kernels of its own. Gain: 2 of about 90 passes over the
    narrow activations of a ResNet block (docs/performance.md, "Batch norm and ReLU by
    sums"), counted in the compiled program.
    """
    return _forward(x, scale, bias, shift, epsilon, relu)[0]


def _forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, relu: bool
) -> tuple[Normalised, tuple[Array, ...]]:
    centred = x.astype(statistics_dtype(x)) - shift
    offset, square = channel_sums(centred, jnp.square(centred)) * _inverse_count(x)
    mean, var = shift + offset, jnp.maximum(square - jnp.square(offset), 0.0)
    y = normalise(x, scale, bias, mean, var, epsilon)
    saved = (x, scale, bias, shift, mean, var)
    return (nn.relu(y) if relu else y, mean, var), saved


def _backward(
    epsilon: float, relu: bool, saved: tuple[Array, ...], gradients: Normalised
) -> tuple[Array, Array, Array, Array]:
    x, scale, bias, shift, mean, var = saved
    dtype = statistics_dtype(x)
    g, centred = gradients[0].astype(dtype), x.astype(dtype) - mean
    root = jax.lax.rsqrt(var + epsilon)
    if relu:
        # Computed as in the forward pass, so that the sign is the same.
        g = jnp.where(normalise(x, scale, bias, mean, var, epsilon) > 0, g, 0)
    to_bias, along = channel_sums(g, g * centred)
    to_scale = along * root
    mean_g = to_bias * _inverse_count(x)
    to_x = g - mean_g - centred * (root * to_scale * _inverse_count(x))
    to_x = (scale * root * to_x).astype(x.dtype)
    vectors = to_scale.astype(scale.dtype), to_bias.astype(bias.dtype)
    return to_x, *vectors, jnp.zeros_like(shift)


batch_norm_fused.defvjp(_forward, _backward)


def _inverse_count(x: Array) -> float:
    """1 / the number of vectors."""
    return x.shape[-1] / x.size


def channel_sums(*arrays: Float[Array, "b ... c"]) -> Float[Array, "n c"]:
    """Sums every array over all axes but the last.

    XLA splits a long sum into two GPU kernels, the second one separate for each array;
    here the second kernel is one for all arrays.
    """
    batch, *inner, channels = arrays[0].shape
    vectors = math.prod(inner)
    parts = _largest_divisor(vectors, math.isqrt(batch * vectors) // batch)
    sums = [jnp.sum(a.reshape(batch, parts, -1, channels), axis=2) for a in arrays]
    return jnp.sum(jnp.stack(sums), axis=(1, 2))  # [n, b, parts, c] -> [n, c]


def _largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor that is at most `limit`, or 1."""
    return max(i for i in range(1, max(limit, 1) + 1) if number % i == 0)
