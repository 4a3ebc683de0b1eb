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


class Linear(nn.Module):
    """A linear layer with bias; a `bias_init` of None is PyTorch's default."""

    features: int
    dtype: Any
    kernel_init: Initializer = uniform_fan_in
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
        """Multiplies by the kernel and adds the bias."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias_init = self.bias_init or uniform_bias(x.shape[-1])
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        y = project(x, kernel)
        return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Makes a layer norm over the last axis, its variance computed in two passes."""
    return nn.LayerNorm(
        epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name
    )


class PointwiseConv(nn.Module):
    """A 1x1 convolution; its kernel is nn.Conv's, [1, 1, in, out].

    A `bias_init` of None is PyTorch's default.
    """

    channels: int
    dtype: Any
    stride: int = 1
    kernel_init: Initializer = he_normal
    use_bias: bool = False
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Convolves; sides n become (n + stride - 1) // stride."""
        shape = (1, 1, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = conv1x1(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            bias_init = self.bias_init or uniform_bias(x.shape[-1])
            bias = self.param("bias", bias_init, (self.channels,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


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
        """Normalises; in training by the batch's statistics, updating running ones."""
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
    x = PointwiseConv(width, dtype, 1, kernel_init, True, bias_init, name="conv")(x)
    return BatchNorm(name="conv_bn")(x, train=train)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch of whole examples, scales up the rest.

    `rate` is the probability that an example's branch is dropped in training.
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
