"""1x1 convolutions as the released code makes them, and the one every head begins with.

They are flax's convolutions rather than dense layers: their kernels, [1, 1, in, out],
are the released ones with the axes in another order.
"""

from typing import Any

from flax import linen as nn

from tokret.models.layers import (
    Initializer,
    precision_of,
    uniform_bias,
    uniform_fan_in,
)
from tokret.models.normalisation import BatchNorm
from tokret.shapes import Array, Float


def pointwise(
    features: int,
    fan_in: int,
    dtype: Any,
    name: str,
    kernel_init: Initializer = uniform_fan_in,
    bias_init: Initializer | None = None,
) -> nn.Conv:
    """Makes a 1x1 convolution with bias, [..., fan_in] -> [..., features]."""
    return nn.Conv(
        features,
        (1, 1),
        dtype=dtype,
        precision=precision_of(dtype),
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
