"""Convolutions of trunks; their kernels are nn.Conv's, [k, k, in, out]."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import normalise
from tokret.models.kernels.depthwise import depthwise
from tokret.models.kernels.expand_conv_bn import expand_conv_bn
from tokret.models.kernels.matmul import conv1x1
from tokret.models.kernels.stem import stem_conv
from tokret.models.kernels.winograd import conv3x3, direct_conv3x3
from tokret.models.layers import BatchNormBase, he_normal
from tokret.shapes import Array, Float

# He's normal by fan out. Each output belongs to one input, so an output's fan out is
# k * k; nn.initializers sees a [k, k, 1, c] kernel and calls that number its fan in.
he_normal_depthwise = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Conv(nn.Module):
    """A convolution without bias, padded by side // 2 zeros or already padded.

    Its side is 3, or 7 with a stride of 2; only inputs of a 3x3 one may be `padded`.
    """

    channels: int
    side: int
    stride: int
    dtype: Any
    padded: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Convolves; sides n, before the padding, become ceil(n / stride)."""
        shape = (self.side, self.side, x.shape[-1], self.channels)
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)  # weights may be NumPy arrays
        x = x.astype(self.dtype)
        if self.side == 7:
            return stem_conv(x, kernel)
        if self.padded:
            return direct_conv3x3(x, kernel, self.stride, padding=0)
        return conv3x3(x, kernel, self.stride, train)


class DepthwiseConv(nn.Module):
    """A depthwise convolution without padding and bias; its kernel is [k, k, 1, c]."""

    side: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Convolves `x`, already padded."""
        shape = (self.side, self.side, 1, x.shape[-1])
        kernel = self.param("kernel", he_normal_depthwise, shape, jnp.float32)
        return depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


class _Kernel(nn.Module):
    """The kernel of `PointwiseConv`, under the same name, without the convolution."""

    channels: int

    @nn.compact
    def __call__(self, inputs: int) -> Float[Array, "1 1 c d"]:
        shape = (1, 1, inputs, self.channels)
        return jnp.asarray(self.param("kernel", he_normal, shape, jnp.float32))


class _ConvBatchNorm(BatchNormBase):
    """A batch norm that also computes the 1x1 convolution before it."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "1 1 c d"],
        *,
        train: bool,
    ) -> Float[Array, "b h w d"]:
        scale, bias, mean, var = self.weights(kernel.shape[-1])
        if not train:
            y = conv1x1(x, kernel, 1)
            return normalise(y, scale, bias, mean, var, self.epsilon)
        y, mean, var = expand_conv_bn(x, kernel, scale, bias, mean, self.epsilon)
        self.update_statistics(mean, var, x.size // x.shape[-1])
        return y


def expand_and_normalise(
    x: Float[Array, "b h w c"],
    channels: int,
    dtype: Any,
    conv: str,
    norm: str,
    *,
    train: bool,
) -> Float[Array, "b h w d"]:
    """A 1x1 convolution to more channels and its batch norm.

    The layers, named `conv` and `norm`, are those of the calling module.
    """
    kernel = _Kernel(channels, name=conv)(x.shape[-1]).astype(dtype)
    return _ConvBatchNorm(name=norm)(x.astype(dtype), kernel, train=train)
