"""Batch norm by the batch's own statistics, and the ReLU behind it, for a GPU.

A GPU's step is bound by its memory and by the number of its kernels. Written out, the
gradient reads inputs and gradient twice and keeps nothing but the inputs; as JAX
derives it, XLA keeps the rectified outputs or the masked gradient as well, and sums up
each statistic in kernels of its own (docs/performance.md).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.normalisation import (
    Normalised,
    Normalising,
    batch_statistics,
    normalised,
    statistics_dtype,
)
from tokret.shapes import Array, Float


def by_autodiff(
    x: Float[Array, "b ... c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shift: Float[Array, " c"],
    epsilon: float,
    relu: bool,
) -> Normalised:
    """Normalises by the inputs' own mean and biased variance.

    Args:
      x: inputs.
      scale: of the batch norm.
      bias: of the batch norm.
      shift: the running mean, about which sums are taken.
      epsilon: added to the variance.
      relu: whether negative outputs become zero.

    Returns:
      Outputs, in the dtype of `x`; and the mean and variance of `x`.
    """
    mean, var = batch_statistics(x, shift)
    y = normalised(x, scale, bias, mean, var, epsilon)
    return nn.relu(y) if relu else y, mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def by_sums(
    x: Float[Array, "b ... c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shift: Float[Array, " c"],
    epsilon: float,
    relu: bool,
) -> Normalised:
    """As `by_autodiff`, in few passes over memory and few kernels.

    No gradient enters by the mean and the variance: they are for running statistics.
    """
    return _forward(x, scale, bias, shift, epsilon, relu)[0]


def _forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, relu: bool
) -> tuple[Normalised, tuple[Array, ...]]:
    centred = x.astype(statistics_dtype(x)) - shift
    offset, square = channel_sums(centred, jnp.square(centred)) * _share(x)
    mean, var = shift + offset, jnp.maximum(square - jnp.square(offset), 0.0)
    y = normalised(x, scale, bias, mean, var, epsilon)
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
        # As it was computed, so that the sign is the same.
        g = jnp.where(normalised(x, scale, bias, mean, var, epsilon) > 0, g, 0)
    to_bias, along = channel_sums(g, g * centred)
    to_scale = along * root
    to_x = g - to_bias * _share(x) - centred * (root * to_scale * _share(x))
    to_x = (scale * root * to_x).astype(x.dtype)
    vectors = to_scale.astype(scale.dtype), to_bias.astype(bias.dtype)
    return to_x, *vectors, jnp.zeros_like(shift)


by_sums.defvjp(_forward, _backward)


def _share(x: Array) -> float:
    """One vector's share of all."""
    return x.shape[-1] / x.size


def channel_sums(*arrays: Float[Array, "b ... c"]) -> Float[Array, "n c"]:
    """Sums every array over all axes but the last.

    Of long sums XLA makes two kernels for a GPU anyway, the second one of each array
    apart. Here that is one of all.
    """
    batch, *inner, channels = arrays[0].shape
    vectors = math.prod(inner)
    parts = _divisor(vectors, math.isqrt(batch * vectors) // batch)
    sums = [jnp.sum(a.reshape(batch, parts, -1, channels), axis=2) for a in arrays]
    return jnp.sum(jnp.stack(sums), axis=(1, 2))


def _divisor(number: int, near: int) -> int:
    """The largest divisor that is at most `near`, or 1."""
    return max(i for i in range(1, max(near, 1) + 1) if number % i == 0)


class BatchNorm(Normalising):
    """Batch normalisation over every axis but the last.

    Under jit the statistics of a sharded batch are those of the whole batch, as in the
    released synchronised training.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ... c"], *, train: bool, relu: bool = False
    ) -> Float[Array, "b ... c"]:
        """Normalises `x`; with `train`, by its own statistics, which are then kept.

        Args:
          x: what is normalised.
          train: whether it is by the batch's own statistics.
          relu: whether negative outputs become zero.
        """
        scale, bias, (mean, var) = self.of_channels(x.shape[-1])
        if not train:
            y = normalised(x, scale, bias, mean, var, self.epsilon)
            return nn.relu(y) if relu else y
        y, mean, var = jax.lax.platform_dependent(
            *(x, scale, bias, mean),
            cuda=lambda *arrays: by_sums(*arrays, self.epsilon, relu),
            default=functools.partial(by_autodiff, epsilon=self.epsilon, relu=relu),
        )
        self.keep(mean, var, x.size // x.shape[-1])
        return y
