"""3x3 convolutions; for inference on a CPU, Winograd's minimal filtering.

F(2x2, 3x3) of Lavin and Gray (CVPR 2016): tiles of 4x4 inputs and the kernel are
transformed by sums and differences, so that 16 matrix products give what takes 36
otherwise, and sums of those are 2x2 outputs. In float32 the rounding error differs by
about 1e-6 of the largest value.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tokret.models.kernels.matmul import convolve, precision_of
from tokret.shapes import Array, Float

# With fewer channels the sums cost more than the products save; with fewer tiles, the
# kernel's transformation does.
MIN_CHANNELS = 128
MIN_TILES = 64
Grid = list[list[Array]]  # elements of tiles by row and column: 4 x 4, or 2 x 2


def conv3x3(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 c d"],
    stride: int,
    train: bool,
) -> Float[Array, "b h2 w2 d"]:
    """A 3x3 convolution, padded by zeros.

    Gain of Winograd's form on a CPU: a descriptor of ResNet-101 in 0.64 instead of 0.79
    s, nothing in training (docs/performance.md, "3x3 convolutions of inference by
    tiles").
    """
    if train or stride != 1 or not winograd_pays(x, kernel.shape[-1]):
        return direct_conv3x3(x, kernel, stride)
    return jax.lax.platform_dependent(
        x, kernel, cpu=winograd_conv3x3, default=direct_conv3x3
    )


def winograd_pays(x: Float[Array, "b h w c"], channels: int) -> bool:
    """Whether a CPU is faster by tiles: for wide float32 layers of many positions."""
    batch, height, width, own = x.shape
    tiles = batch * -(-height // 2) * -(-width // 2)
    wide = min(own, channels) >= MIN_CHANNELS and tiles >= MIN_TILES
    return wide and jnp.dtype(x.dtype).itemsize >= 4


def direct_conv3x3(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 c d"],
    stride: int = 1,
    padding: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """Convolves by XLA's own operation."""
    return convolve(x, kernel, stride, (padding, padding))


def winograd_conv3x3(
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
    return _transform_outputs(products)[:, : x.shape[1], : x.shape[2]]


def _transform_kernel(kernel: Float[Array, "3 3 c d"]) -> Grid:
    return [_four_of_three(line) for line in _four_of_three(kernel)]


def _four_of_three(k: Float[Array, "3 ..."]) -> list[Array]:
    ends, middle = (k[0] + k[2]) / 2, k[1] / 2
    return [k[0], ends + middle, ends - middle, k[2]]


def _transform_tiles(x: Float[Array, "b h w c"]) -> Grid:
    """Transforms all tiles, one for every other row and column of the padded input."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return [_four_of_four(line, 2) for line in _four_of_four(x, 1)]


def _four_of_four(x: Array, axis: int) -> list[Array]:
    length = x.shape[axis] - 2
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + length - 1, 2, axis) for i in range(4))
    return [a - c, b + c, c - b, b - d]


def _transform_outputs(products: Grid) -> Float[Array, "b h w d"]:
    """Sums each tile's products to its 2x2 outputs and assembles the tiles."""
    columns = [_two_of_four(column) for column in zip(*products, strict=True)]
    lines = [_two_of_four(line) for line in zip(*columns, strict=True)]
    batch, rows, tiles, channels = lines[0][0].shape
    outputs = jnp.stack([jnp.stack(line, 3) for line in lines], 2)
    # [b, h / 2, 2, w / 2, 2, d] -> [b, h, w, d]
    return outputs.reshape(batch, 2 * rows, 2 * tiles, channels)


def _two_of_four(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
