"""Layers that heads and trunks are made of, with the released initialisation."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import batch_norm, normalise
from tokret.models.kernels.matmul import conv1x1, project
from tokret.shapes import Array, Float

Initializer = Callable[..., jax.Array]
LAYER_NORM_EPSILON = 1e-5  # PyTorch's; Flax's default is 1e-6

zeros = nn.initializers.zeros
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


def l2_normalise(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Scales the last axis to length 1; vectors shorter than 1e-12 stay near zero.

    The bound is under the root, so the gradient at the zero vector is finite: padded
    class vectors are zero.
    """
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def _dot_general(
    x: Array, matrix: Array, dimension_numbers: Any, precision: Any
) -> Array:
    """The product that nn.Dense calls."""
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


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Makes a layer norm over the last axis, its variance computed in two passes."""
    return nn.LayerNorm(
        epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name
    )


class PointwiseConv(nn.Module):
    """A 1x1 convolution; its kernel is nn.Conv's, [1, 1, in, out].

    Attributes:
      channels: channels of the output.
      dtype: dtype of the computation.
      stride: 1 or 2.
      kernel_init: initialiser of the kernel.
      bias_init: initialiser of the bias; None for no bias.
    """

    channels: int
    dtype: Any
    stride: int = 1
    kernel_init: Initializer = he_normal
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Convolves; sides n become (n + stride - 1) // stride."""
        shape = (1, 1, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = conv1x1(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.bias_init is not None:
            bias = self.param("bias", self.bias_init, (self.channels,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


def pointwise_conv(
    features: int,
    fan_in: int,
    dtype: Any,
    name: str,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
) -> PointwiseConv:
    """Makes a 1x1 convolution with bias, [..., fan_in] -> [..., features]."""
    bias_init = bias_init or uniform_bias(fan_in)
    return PointwiseConv(features, dtype, 1, kernel_init, bias_init, name=name)


class BatchNormBase(nn.Module):
    """Parameters and running statistics of a batch normalisation.

    Flax keeps the biased variance in its running statistics, PyTorch the unbiased one,
    which the released weights and goldens have: hence a module of our own.

    Attributes:
      momentum: fraction of the old running statistics that a step keeps (0.9 is
        PyTorch's 0.1).
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    def weights(self, channels: int) -> tuple[Float[Array, " c"], ...]:
        """Returns scale, bias, running mean and running variance."""
        shape = (channels,)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        # Weights may be NumPy arrays.
        return tuple(jnp.asarray(a) for a in (scale, bias, mean.value, var.value))

    def update_statistics(
        self, mean: Float[Array, " c"], var: Float[Array, " c"], count: int
    ) -> None:
        """Moves the running statistics towards those of `count` vectors."""
        if self.is_initializing():
            return
        unbiased = var * (count / max(count - 1, 1))
        for name, value in (("mean", mean), ("var", unbiased)):
            old: Array = self.get_variable("batch_stats", name)
            new = self.momentum * old + (1.0 - self.momentum) * value
            self.put_variable("batch_stats", name, new)


class BatchNorm(BatchNormBase):
    """Batch normalisation over every axis but the last.

    Under jit the statistics of a sharded batch are those of the whole batch, as in the
    released synchronised training.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ... c"], *, train: bool, relu: bool = False
    ) -> Float[Array, "b ... c"]:
        """Normalises `x`.

        Args:
          x: inputs.
          train: whether by the batch's own statistics, which update the running ones.
          relu: whether negative outputs become zero.
        """
        scale, bias, mean, var = self.weights(x.shape[-1])
        if not train:
            y = normalise(x, scale, bias, mean, var, self.epsilon)
            return nn.relu(y) if relu else y
        y, mean, var = batch_norm(x, scale, bias, mean, self.epsilon, relu)
        self.update_statistics(mean, var, x.size // x.shape[-1])
        return y


def local_features(
    x: Float[Array, "b h w c"],
    width: int,
    dtype: Any,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
    *,
    train: bool,
) -> Float[Array, "b h w d"]:
    """Reduces a feature map to `width` channels: convolution and batch norm.

    Its layers, `conv` and `conv_bn`, are those of the calling module.
    """
    x = pointwise_conv(width, x.shape[-1], dtype, "conv", kernel_init, bias_init)(x)
    return BatchNorm(name="conv_bn")(x, train=train)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch of whole examples, scales up the rest.

    Attributes:
      rate: probability that an example's branch is dropped in training.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], *, train: bool
    ) -> Float[Array, "b ..."]:
        """Returns `x`, in training with some examples zeroed."""
        all_but_batch = tuple(range(1, x.ndim))
        dropout = nn.Dropout(self.rate, broadcast_dims=all_but_batch)
        return dropout(x, deterministic=not train)
