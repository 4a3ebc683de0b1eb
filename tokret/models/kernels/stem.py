"""A ResNet's first convolution, 7x7 with stride 2."""

import jax
import jax.numpy as jnp

from tokret.models.kernels.matmul import convolve, precision_of
from tokret.shapes import Array, Float

CHANNEL_MULTIPLE = 8  # tensor cores need channels in multiples of this


def stem_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "7 7 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """Convolves with stride 2 and zero padding; sides n become (n + 1) // 2."""
    # Float32 does not use tensor cores, and would only see more products.
    quads = quad_stem_conv if kernel.dtype.itemsize < 4 else direct_stem_conv
    return jax.lax.platform_dependent(x, kernel, cuda=quads, default=direct_stem_conv)


def direct_stem_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "7 7 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """Convolves by XLA's own operation."""
    return convolve(x, kernel, 2, (3, 3))


def quad_stem_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "7 7 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """Convolves 4x4 with stride 1, each 2x2 positions as channels (space to depth).

    Three channels leave a GPU's tensor cores nearly idle. Gain on an H100: 0.9 instead
    of 2.3 ms forward, 0.6 instead of 1.5 for the kernel's gradient
    (docs/performance.md, "The stem as 4x4 over quads").
    """
    height, width = x.shape[1:3]
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    # A row and a column of zeros before the kernel's first make its side even.
    kernel = jnp.pad(kernel, [(1, 0), (1, 0), (0, 0), (0, 0)])
    quads, matrices = _space_to_depth(x), _space_to_depth(kernel.transpose(3, 0, 1, 2))
    return jax.lax.conv_general_dilated(
        quads,
        matrices,
        (1, 1),
        [(2, 1), (2, 1)],
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
        precision=precision_of(x.dtype),
    )


def _space_to_depth(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
    """Makes channels of each 2x2 positions, with zeros up to a multiple of 8."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, -1)
    padding = -x.shape[-1] % CHANNEL_MULTIPLE
    return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, padding)])
