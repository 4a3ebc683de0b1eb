"""1x1 convolutions, and the one that every head begins with.

Their kernels are nn.Conv's, [1, 1, in, out], which are the released ones with the axes
in another order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import BatchNorm
from tokret.models.kernels.matmul import precision_of, project, project_back
from tokret.models.layers import Initializer, he_normal, uniform_bias, uniform_fan_in
from tokret.shapes import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def mix_channels(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """A 1x1 convolution without padding, in the form that the device is fast at.

    XLA's CPU backend is a fifth slower at the convolution than at a product and far
    slower at its gradients; a TPU program with products moves a tenth more bytes than
    one with convolutions, since it changes layouts between them (docs/performance.md).
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        tpu=functools.partial(_convolve, stride=stride),
        default=functools.partial(_multiply, stride=stride),
    )


def _convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"], *, stride: int
) -> Float[Array, "b h2 w2 d"]:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
    )


def _convolve_back(
    x: Array, kernel: Array, g: Array, *, stride: int
) -> tuple[Array, Array]:
    (to_x,) = jax.linear_transpose(lambda x: _convolve(x, kernel, stride=stride), x)(g)
    (to_kernel,) = jax.linear_transpose(
        lambda kernel: _convolve(x, kernel, stride=stride), kernel
    )(g)
    return to_x, to_kernel


def _multiply(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"], *, stride: int
) -> Float[Array, "b h2 w2 d"]:
    return project(_every(x, stride), kernel[0, 0])


def _multiply_back(
    x: Array, kernel: Array, g: Array, *, stride: int
) -> tuple[Array, Array]:
    to_few, to_matrix = project_back((_every(x, stride), kernel[0, 0]), g)
    (to_x,) = jax.linear_transpose(lambda x: _every(x, stride), x)(to_few)
    return to_x, to_matrix[None, None]


def _every(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    return x if stride == 1 else x[:, ::stride, ::stride]


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return mix_channels(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    gradients: tuple[Array, Array] = jax.lax.platform_dependent(
        *saved,
        g,
        tpu=functools.partial(_convolve_back, stride=stride),
        default=functools.partial(_multiply_back, stride=stride),
    )
    return gradients


mix_channels.defvjp(_forward, _backward)


class PointwiseConv(nn.Module):
    """A 1x1 convolution.

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
        kernel = kernel.astype(self.dtype)
        y = mix_channels(x.astype(self.dtype), kernel, self.stride)
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
    x: Float[Array, "b h w c"],
    width: int,
    dtype: Any,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
    *,
    train: bool,
) -> Float[Array, "b h w d"]:
    """Reduces a feature map to `width` channels: convolution and batch norm.

    Its layers, `conv` and `conv_bn`, belong to the module that calls it.
    """
    x = pointwise(width, x.shape[-1], dtype, "conv", kernel_init, bias_init)(x)
    return BatchNorm(name="conv_bn")(x, train=train)
