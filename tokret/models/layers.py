"""Linear layers, residual sums, dropout of paths and the released initialisation."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import project
from tokret.shapes import Array, Float

Initializer = Callable[..., jax.Array]
Intermediates = dict[str, Array]  # what a module found on its way, by name

# PyTorch's default for linear and convolution weights: uniform in +-1/sqrt(fan in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torchvision's for the convolutions of its trunks.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform in +-1/sqrt(fan in)."""
    bound = 1 / math.sqrt(fan_in)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def _dot_general(
    x: Array, matrix: Array, dimension_numbers: Any, precision: Any
) -> Array:
    """What nn.Dense calls: the one product that it asks for."""
    assert dimension_numbers == (((x.ndim - 1,), (0,)), ((), ())) and precision is None
    return project(x, matrix)


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
        dot_general=_dot_general,
        kernel_init=kernel_init,
        bias_init=bias_init or uniform_bias(fan_in),
        name=name,
    )


@jax.custom_vjp
def relu_of_sum(x: Float[Array, "... c"], y: Float[Array, "... c"]) -> Array:
    """relu(x + y), to the bit where both are finite; at 0 its gradient is 0.

    XLA's CPU backend puts a relu, which has one large operand, into whatever reads it:
    each block of a ResNet's stage would sum up all blocks before it anew. A sum of two
    it computes once (docs/performance.md).
    """
    if x.dtype.itemsize >= 4:
        return _largest_and_sum(x, y)
    return jax.lax.platform_dependent(x, y, cpu=_rounded_once, default=_largest_and_sum)


def _largest_and_sum(x: Array, y: Array) -> Array:
    return jnp.maximum(x, -y) + y


def _rounded_once(x: Array, y: Array) -> Array:
    """The same of bfloat16: XLA rounds the largest, too, which needs none."""
    total = _largest_and_sum(x.astype(jnp.float32), y.astype(jnp.float32))
    return total.astype(x.dtype)


def _sum_and_itself(x: Array, y: Array) -> tuple[Array, Array]:
    outputs = relu_of_sum(x, y)
    return outputs, outputs


def _where_positive(outputs: Array, g: Array) -> tuple[Array, Array]:
    g = jnp.where(outputs > 0, g, 0)
    return g, g


relu_of_sum.defvjp(_sum_and_itself, _where_positive)


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
