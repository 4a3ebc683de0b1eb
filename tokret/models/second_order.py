"""The second-order block of SOLAR (Ng et al., ECCV 2020, section 3.2).

Every position attends to all others by the similarity of two learned projections: a
non-local block (Wang et al., CVPR 2018) with a softmax. As released, its output
projection is initialised to zero, so a new block changes nothing.
"""

import functools
from typing import Any

from flax import linen as nn

from tokret.models.attention import attention_weights
from tokret.models.kernels.matmul import einsum
from tokret.models.layers import BatchNorm, PointwiseConv, zeros
from tokret.models.masking import Sizes, mask_padding, valid_mask
from tokret.shapes import Array, Float

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class SecondOrderAttention(nn.Module):
    """x + v(softmax over the KEYS of (f(x) . g(x)) h(x)); f, g, h have `width`."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Sizes, *, train: bool
    ) -> Float[Array, "b h w c"]:
        """Returns the block's output; only positions in the true areas are keys."""
        batch, height, width, channels = x.shape
        x = mask_padding(x, sizes)
        mask = valid_mask(sizes, x)
        mask = None if mask is None else mask.reshape(batch, -1)  # [b, n]
        conv = functools.partial(
            PointwiseConv,
            dtype=self.dtype,
            kernel_init=kaiming_normal,
            use_bias=True,
            bias_init=zeros,
        )

        def project(name: str) -> Float[Array, "b n 1 d"]:
            y = conv(self.width, name=f"{name}_conv")(x)
            y = BatchNorm(name=f"{name}_bn")(y, train=train, relu=True)
            return y.reshape(batch, height * width, 1, self.width)  # one head

        weights = attention_weights(project("f"), project("g"), mask)[:, 0]  # [b, n, m]
        values = conv(self.width, name="h")(x).reshape(batch, -1, self.width)
        y = einsum("bnm,bmd->bnd", weights, values)
        y = y.reshape(batch, height, width, self.width)
        return x + conv(channels, name="v", kernel_init=zeros)(y)
