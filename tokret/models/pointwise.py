"""1x1 convolutions as matrix products, and the one that every head begins with.

Their kernels are nn.Conv's, [1, 1, in, out], which are the released ones with the axes
in another order.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import Initializer, he_normal, uniform_bias, uniform_fan_in
from tokret.models.normalisation import BatchNorm
from tokret.models.products import project
from tokret.shapes import Array, Float


class PointwiseConv(nn.Module):
    """A 1x1 convolution, as a matrix product.

    XLA's CPU backend is a fifth slower at the convolution and far slower at its
    gradients (docs/performance.md); to other backends the two are one.

    Attributes:
      channels: channels of the output.
      dtype: dtype of the computation.
      stride: 1 or 2.
      kernel_init: draws the kernel.
      bias_init: draws the bias; None for no bias.
    """

    channels: int
    dtype: Any
    stride: int = 1
    kernel_init: Initializer = he_normal
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Mixes the channels of each position that the stride leaves."""
        shape = (1, 1, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if self.stride != 1:
            x = x[:, :: self.stride, :: self.stride]
        y = project(x.astype(self.dtype), kernel[0, 0].astype(self.dtype))
        if self.bias_init is not None:
            bias = self.param("bias", self.bias_init, (self.channels,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


def pointwise(
    features: int,
    fan_in: int,
    dtype: Any,
    name: str,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
) -> PointwiseConv:
    """Makes a 1x1 convolution with bias, [..., fan_in] -> [..., features]."""
    return PointwiseConv(
        features,
        dtype,
        kernel_init=kernel_init,
        bias_init=bias_init or uniform_bias(fan_in),
        name=name,
    )


def local_features(
    x: Float[Array, "b h w c"], width: int, dtype: Any, *, train: bool
) -> Float[Array, "b h w d"]:
    """Reduces a feature map to `width` channels: convolution and batch norm.

    Its layers, `conv` and `conv_bn`, belong to the module that calls it.
    """
    x = pointwise(width, x.shape[-1], dtype, "conv")(x)
    return BatchNorm(name="conv_bn")(x, train=train)
