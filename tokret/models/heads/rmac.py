"""R-MAC: maxima over square regions, summed (Tolias et al., ICLR 2016, section 3.2).

Regions of three sizes cover the map. Neighbours in a row or column overlap by 40 %, or
as closely as their number allows. The maxima of each region and those of the whole map
are L2-normalised; their sum is normalised and whitened, as released.

The regions' offsets are computed in float32, as released: rounding moves some by a
pixel.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tokret.models.heads import FeatureMap, Head, HeadOutput
from tokret.models.heads.gem import whiten
from tokret.models.kernels.matmul import statistics_dtype
from tokret.models.layers import l2_normalise
from tokret.models.masking import Sizes
from tokret.shapes import Array, Float, Int

EPSILON = 1e-6  # added to the length of a region's maxima
OVERLAP = 0.4  # target for neighbouring regions
STEPS = np.arange(2, 8, dtype=np.float32)  # regions along the longer side


class Region(NamedTuple):
    """A rectangle of positions."""

    top: int
    left: int
    height: int
    width: int


def extra_steps(shorter: int, longer: int) -> int:
    """Returns how many more regions the longer side has than the shorter."""
    if shorter == longer:
        return 0
    distance = np.float32(longer - shorter) / (STEPS - 1)
    overlap = (shorter**2 - shorter * distance) / shorter**2
    return int(np.argmin(np.abs(overlap - np.float32(OVERLAP)))) + 1


def offsets(length: int, side: int, count: int) -> list[int]:
    """Returns the first positions of `count` regions along a length."""
    centre = math.floor(side / 2 - 1)
    distance = np.float32(0 if count == 1 else (length - side) / (count - 1))
    steps = np.arange(count, dtype=np.float32)
    return [int(x) - centre for x in np.floor(centre + steps * distance)]


@functools.lru_cache(maxsize=1 << 14)
def regions_of(height: int, width: int, levels: int) -> tuple[Region, ...]:
    """Returns the whole map and every region of it."""
    shorter = min(height, width)
    extra = extra_steps(shorter, max(height, width))
    more_rows, more_columns = (extra, 0) if height > width else (0, extra)
    regions = [Region(0, 0, height, width)]
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        if side > 0:
            rows = offsets(height, side, level + more_rows)
            columns = offsets(width, side, level + more_columns)
            regions += [Region(i, j, side, side) for i in rows for j in columns]
    return tuple(regions)


@functools.lru_cache(maxsize=32)
def region_table(height: int, width: int, levels: int) -> np.ndarray:
    """Returns the regions of every map that fits in a canvas, [height, width, R, 4].

    Regions of height 0 are padding of the table.
    """
    sizes = [(h, w) for h in range(1, height + 1) for w in range(1, width + 1)]
    by_size = [regions_of(h, w, levels) for h, w in sizes]
    table = np.zeros((len(sizes), max(map(len, by_size)), 4), np.int32)
    for row, regions in zip(table, by_size, strict=True):
        row[: len(regions)] = regions
    return table.reshape(height, width, -1, 4)


def normalise_maxima(maxima: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """Divides by length plus `EPSILON`; the gradient at zero is finite."""
    maxima = maxima.astype(statistics_dtype(maxima))
    squares = jnp.sum(jnp.square(maxima), axis=-1, keepdims=True)
    return maxima / (jnp.sqrt(jnp.maximum(squares, 1e-24)) + EPSILON)


def spatial_max(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Returns the maximum over positions, whose gradient goes to one position.

    By index: the gradient of `max` compares values, and a compiler may compute them
    twice with different rounding, so that none of them is the maximum (0 / 0).
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    index = jnp.argmax(flat, axis=1, keepdims=True)
    return jnp.take_along_axis(flat, index, axis=1)[:, 0]


def regional_maxima(
    x: Float[Array, "b h w c"], sizes: Sizes, levels: int
) -> Float[Array, "b c"]:
    """Sums the normalised maxima of the whole map and of its regions."""
    if sizes is None:
        corners = (
            (slice(None), slice(i, i + h), slice(j, j + w))
            for i, j, h, w in regions_of(x.shape[1], x.shape[2], levels)
        )
        vectors = [normalise_maxima(spatial_max(x[corner])) for corner in corners]
        return functools.reduce(jnp.add, vectors)
    return _masked_regional_maxima(x, sizes, levels)


def _masked_regional_maxima(
    x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"], levels: int
) -> Float[Array, "b c"]:
    """The same where every image has regions of its own, by a loop over regions."""
    table = jnp.asarray(region_table(x.shape[1], x.shape[2], levels))
    regions = table[sizes[:, 0] - 1, sizes[:, 1] - 1]  # [b, R, 4]

    def add(total: Array, region: Int[Array, "b 4"]) -> tuple[Array, None]:
        top, left, height, width = (region[:, i, None] for i in range(4))
        row, column = jnp.arange(x.shape[1]), jnp.arange(x.shape[2])
        rows = (row >= top) & (row < top + height)  # [b, h]
        columns = (column >= left) & (column < left + width)  # [b, w]
        in_region = rows[:, :, None, None] & columns[:, None, :, None]
        maxima = spatial_max(jnp.where(in_region, x, -jnp.inf))
        return total + normalise_maxima(jnp.where(height > 0, maxima, 0)), None

    zero = jnp.zeros((x.shape[0], x.shape[3]), statistics_dtype(x))
    return jax.lax.scan(add, zero, jnp.moveaxis(regions, 1, 0))[0]


class RMACHead(Head):
    """Regional maxima, then whitening.

    The released evaluation does not L2-normalise the sum before whitening, so that the
    whitening's bias weighs less than in training: with `normalise_in_evaluation` False
    it evaluates as the authors do, with True as the weights were trained.
    """

    levels: int = 3
    normalise_in_evaluation: bool = True

    @nn.compact
    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """See `Head`; the intermediate pooled [b, c] is the sum over regions."""
        pooled = regional_maxima(features, sizes, self.levels)
        intermediates = {"pooled": pooled}
        if train or self.normalise_in_evaluation:
            pooled = l2_normalise(pooled)
        return whiten(pooled, self.dim, self.dtype), intermediates
