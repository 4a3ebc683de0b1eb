"""Batch normalisation with PyTorch's running statistics; L2 normalisation."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.shapes import Array, Float


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


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last.

    Flax keeps the biased variance in its running statistics, PyTorch the unbiased one,
    which the released weights and goldens have: hence a module of our own. Under jit
    the statistics of a sharded batch are those of the whole batch, as in the released
    synchronised training.

    Attributes:
      momentum: share of the old running statistics kept in a step (PyTorch says 0.1
        for this 0.9).
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "... c"], *, train: bool
    ) -> Float[Array, "... c"]:
        """Normalises `x`; with `train`, by its own statistics, which are then kept."""
        dtype = statistics_dtype(x)
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        kept_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, (channels,), jnp.float32
        )
        kept_var = self.variable(
            "batch_stats", "var", jnp.ones, (channels,), jnp.float32
        )
        mean, var = kept_mean.value, kept_var.value
        if train:
            mean, var = self._batch_statistics(x.astype(dtype), kept_mean.value)
            if not self.is_initializing():
                count = x.size // channels
                unbiased = var * (count / max(count - 1, 1))
                kept_mean.value = self._moved(kept_mean.value, mean)
                kept_var.value = self._moved(kept_var.value, unbiased)
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x.astype(dtype) * factor + (bias - mean * factor)).astype(x.dtype)

    def _batch_statistics(
        self, x: Float[Array, "... c"], shift: Float[Array, " c"]
    ) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Mean and biased variance in one pass over memory.

        Sums are taken about the running mean, so that the difference of two large
        numbers does not cancel once training is under way.
        """
        axes = tuple(range(x.ndim - 1))
        shift = jax.lax.stop_gradient(shift)
        centred = x - shift
        offset = jnp.mean(centred, axes)
        var = jnp.mean(jnp.square(centred), axes) - jnp.square(offset)
        return shift + offset, jnp.maximum(var, 0.0)

    def _moved(
        self, kept: Float[Array, " c"], batch: Float[Array, " c"]
    ) -> Float[Array, " c"]:
        return self.momentum * kept + (1.0 - self.momentum) * batch
