"""A ResNet's first convolution, 7x7 of stride 2, in the form that a device is fast at.

On a GPU three channels leave tensor cores nearly idle. Every 2x2 positions are put side
by side as channels there, so that a 4x4 convolution of stride 1 does the same.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import precision_of
from tokret.models.layers import he_normal
from tokret.shapes import Array, Float

SIDE, STRIDE, BORDER = 7, 2, 3
EIGHTH = 8  # tensor cores want channels in multiples of this


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "7 7 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """Convolves as it is written: stride 2, a border of three zeros."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (STRIDE, STRIDE),
        [(BORDER, BORDER)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
    )


def convolve_quads(
    x: Float[Array, "b h w c"], kernel: Float[Array, "7 7 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """The same; a row of zeros before the kernel's first makes its side even."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    kernel = jnp.pad(kernel, [(1, 0), (1, 0), (0, 0), (0, 0)])
    quads, matrices = _side_by_side(x), _side_by_side(kernel.transpose(3, 0, 1, 2))
    return jax.lax.conv_general_dilated(
        quads,
        matrices,
        (1, 1),
        [(2, 1), (2, 1)],
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
        precision=precision_of(x.dtype),
    )


def _side_by_side(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
    """Makes channels of every 2x2 positions, and zeros up to a multiple of 8."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, -1)
    return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, -x.shape[-1] % EIGHTH)])


class Stem(nn.Module):
    """The convolution without bias; its kernel is nn.Conv's, [7, 7, in, out].

    Attributes:
      channels: channels of the output.
      dtype: dtype of the computation.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Convolves; sides n become (n + 1) // 2."""
        shape = (SIDE, SIDE, x.shape[-1], self.channels)
        kernel = self.param("kernel", he_normal, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        # Float32 is computed without tensor cores, which would see more products.
        quads = convolve_quads if kernel.dtype.itemsize < 4 else convolve
        return jax.lax.platform_dependent(x, kernel, cuda=quads, default=convolve)
