"""Batch normalisation with PyTorch's running statistics; L2 normalisation."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.shapes import Array, Float

PerChannel = Float[Array, " c"]
Statistics = tuple[PerChannel, PerChannel]  # mean, variance
# What is normalised, and its mean and biased variance before that.
Normalised = tuple[Float[Array, "... d"], Float[Array, " d"], Float[Array, " d"]]


def l2_normalise(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Scales the last axis to length 1; vectors shorter than 1e-12 shrink to nothing.

    The bound sits under the root, so the gradient at the zero vector is finite: padded
    class vectors are zero.
    """
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def statistics_dtype(x: jax.Array) -> jnp.dtype:
    """Returns the dtype of sums over `x`: float32, or float64 in parity tests."""
    return jnp.promote_types(x.dtype, jnp.float32)


def batch_statistics(
    x: Float[Array, "... c"], shift: Float[Array, " c"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and biased variance over every axis but the last, in one pass over memory.

    Args:
      x: what they are of.
      shift: what sums are taken about: the running mean, so that the difference of two
        large numbers does not cancel once training is under way.

    Returns:
      Mean and variance, in float32 or wider.
    """
    x = x.astype(statistics_dtype(x))
    axes = tuple(range(x.ndim - 1))
    shift = jax.lax.stop_gradient(shift)
    centred = x - shift
    offset = jnp.mean(centred, axes)
    var = jnp.mean(jnp.square(centred), axes) - jnp.square(offset)
    return shift + offset, jnp.maximum(var, 0.0)


def normalised(
    x: Float[Array, "... c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    var: Float[Array, " c"],
    epsilon: float,
) -> Float[Array, "... c"]:
    """Returns scale * (x - mean) / sqrt(var + epsilon) + bias, in the dtype of `x`."""
    factor = scale * jax.lax.rsqrt(var + epsilon)
    y = x.astype(statistics_dtype(x)) * factor + (bias - mean * factor)
    return y.astype(x.dtype)


class Normalising(nn.Module):
    """What a batch normalisation learns and keeps.

    Flax keeps the biased variance in its running statistics, PyTorch the unbiased one,
    which the released weights and goldens have: hence a module of our own.

    Attributes:
      momentum: share of the old running statistics kept in a step (PyTorch says 0.1
        for this 0.9).
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    def of_channels(self, channels: int) -> tuple[PerChannel, PerChannel, Statistics]:
        """Returns scale, bias, and the running mean and variance."""
        shape = (channels,)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        # Weights may be given as NumPy's.
        kept = jnp.asarray(mean.value), jnp.asarray(var.value)
        return jnp.asarray(scale), jnp.asarray(bias), kept

    def keep(
        self, mean: Float[Array, " c"], var: Float[Array, " c"], count: int
    ) -> None:
        """Moves the running statistics towards those of `count` vectors."""
        if self.is_initializing():
            return
        unbiased = var * (count / max(count - 1, 1))
        for name, found in (("mean", mean), ("var", unbiased)):
            kept: Array = self.get_variable("batch_stats", name)
            moved = self.momentum * kept + (1.0 - self.momentum) * found
            self.put_variable("batch_stats", name, moved)
