"""Linear layers, dropout of paths and the released initialisation, written once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.shapes import Array, Float

Initializer = Callable[..., jax.Array]
Intermediates = dict[str, Array]  # what a module found on its way, by name

# PyTorch's default for linear and convolution weights: uniform in +-1/sqrt(fan in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform in +-1/sqrt(fan in)."""
    bound = 1 / math.sqrt(fan_in)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """Returns the precision of products: float32 means float32, also on GPU and TPU.

    Accelerators compute float32 products in TF32 or bf16 passes unless told otherwise.
    """
    return None if jnp.dtype(dtype).itemsize < 4 else jax.lax.Precision.HIGHEST


def linear(
    features: int,
    fan_in: int,
    dtype: Any,
    name: str,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
) -> nn.Dense:
    """Makes a linear layer with bias, [..., fan_in] -> [..., features]."""
    return nn.Dense(
        features,
        dtype=dtype,
        precision=precision_of(dtype),
        kernel_init=kernel_init,
        bias_init=bias_init or uniform_bias(fan_in),
        name=name,
    )


class DropPath(nn.Module):
    """Drops a residual branch of whole examples and scales up what is left.

    Attributes:
      rate: probability that an example's branch is dropped in training.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], *, train: bool
    ) -> Float[Array, "b ..."]:
        """Returns `x`, in training with some examples zeroed."""
        batch_alone = tuple(range(1, x.ndim))
        dropout = nn.Dropout(self.rate, broadcast_dims=batch_alone)
        return dropout(x, deterministic=not train)
