"""3x3 convolutions, which inference on a CPU takes by Winograd's minimal filtering.

F(2x2, 3x3) of Lavin and Gray (CVPR 2016): a tile of 4x4 inputs and the kernel are
transformed by sums and differences, so that 16 products of vectors and matrices give
what 36 give otherwise, and sums of those are 2x2 outputs. Rounding differs by some 1e-6
of the largest value in float32; nothing is left out.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import precision_of
from tokret.models.layers import he_normal
from tokret.shapes import Array, Float

# With fewer channels the sums cost more than the products save; with fewer tiles, the
# kernel's transformation (docs/performance.md).
LEAST_CHANNELS = 128
LEAST_TILES = 64
Grid = list[list[Array]]  # parts of tiles by row and column: 4 x 4, or 2 x 2


class Conv3x3(nn.Module):
    """A 3x3 convolution of stride 1, without bias, with a border of zeros.

    Its kernel is nn.Conv's, [3, 3, in, out].

    Attributes:
      channels: channels of the output.
      dtype: dtype of the computation.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h w d"]:
        """Convolves; by tiles where that is faster, which training is not."""
        shape = (3, 3, x.shape[-1], self.channels)
        kernel = self.param("kernel", he_normal, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if train or not tiles_pay(x, self.channels):
            return convolve(x, kernel)
        return jax.lax.platform_dependent(
            x, kernel, cpu=convolve_tiles, default=convolve
        )


def tiles_pay(x: Float[Array, "b h w c"], channels: int) -> bool:
    """Whether a CPU is faster by tiles: for wide layers of many positions."""
    batch, height, width, own = x.shape
    tiles = batch * -(-height // 2) * -(-width // 2)
    wide = min(own, channels) >= LEAST_CHANNELS and tiles >= LEAST_TILES
    return wide and jnp.dtype(x.dtype).itemsize >= 4


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """Convolves as XLA does."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
    )


def convolve_tiles(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """Convolves by tiles."""
    products = [
        [
            jnp.matmul(tile, matrix, precision=precision_of(x.dtype))
            for tile, matrix in zip(*line, strict=True)
        ]
        for line in zip(_transform_tiles(x), _transform_kernel(kernel), strict=True)
    ]
    return _gather(products)[:, : x.shape[1], : x.shape[2]]


def _transform_kernel(kernel: Float[Array, "3 3 c d"]) -> Grid:
    return [_four_of_three(line) for line in _four_of_three(kernel)]


def _four_of_three(k: Float[Array, "3 ..."]) -> list[Array]:
    ends, middle = (k[0] + k[2]) / 2, k[1] / 2
    return [k[0], ends + middle, ends - middle, k[2]]


def _transform_tiles(x: Float[Array, "b h w c"]) -> Grid:
    """Transforms all tiles, which begin at every other position of the border on."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return [_overlapping(line, 2) for line in _overlapping(x, 1)]


def _overlapping(x: Array, axis: int) -> list[Array]:
    length = x.shape[axis] - 2
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + length - 1, 2, axis) for i in range(4))
    return [a - c, b + c, c - b, b - d]


def _gather(products: Grid) -> Float[Array, "b h w d"]:
    """Sums each tile's products up to its 2x2 outputs, and puts the tiles together."""
    columns = [_two_of_four(column) for column in zip(*products, strict=True)]
    lines = [_two_of_four(line) for line in zip(*columns, strict=True)]
    batch, rows, tiles, channels = lines[0][0].shape
    outputs = jnp.stack([jnp.stack(line, 3) for line in lines], 2)
    return outputs.reshape(batch, 2 * rows, 2 * tiles, channels)


def _two_of_four(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
