"""A ResNet's max-pool and its gradient, in the form that the device is fast at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tokret.shapes import Array, Float, Int

EVEN_AND_ODD = ((1,), (2, 0))  # taps by which windows meet a row or column
CENTRE = 4  # the tap that no border can be


def pool_windows(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools as XLA does, whose CPU backend first writes its input to memory."""
    return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])


def pool_taps(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools as the largest of nine arrays: XLA computes their input on the way."""
    rows, columns = (2 * -(-side // 2) - 1 for side in x.shape[1:3])
    border = [(0, 0), (1, 1), (1, 1), (0, 0)]
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    taps = (x[:, i : i + rows : 2, j : j + columns : 2] for i, j in np.ndindex(3, 3))
    return functools.reduce(jnp.maximum, taps)


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools windows of 3x3 around every other position; no border takes part.

    Where several positions of a window are largest, the gradient is the first one's,
    row by row, as PyTorch's and XLA's is.
    """
    return jax.lax.platform_dependent(x, cpu=pool_taps, default=pool_windows)


def pool_back(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The gradient as JAX derives it; XLA's CPU backend scatters it, one by one."""
    (to_x,) = jax.vjp(pool_windows, x)[1](g)
    return jnp.asarray(to_x)


def pool_back_by_taps(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The gradient, gathered from the one to four windows that each position lies in.

    Rows of even number are the middle (tap 1) of one window, those of odd number the
    end (2) of one and the beginning (0) of the next; columns likewise.
    """
    largest = _largest_tap(x)

    def given(row: int, column: int) -> Array:
        """What windows give this tap, beside the window that their positions end."""
        taken = jnp.where(largest == 3 * row + column, g, 0)
        later = [(0, 0), (0, int(row == 0)), (0, int(column == 0)), (0, 0)]
        return jnp.pad(taken, later)[:, later[1][1] :, later[2][1] :]

    lines = [
        jnp.stack(
            [
                sum(given(i, j) for i in rows for j in columns)
                for columns in EVEN_AND_ODD
            ],
            axis=3,
        )
        for rows in EVEN_AND_ODD
    ]
    batch, height, width, channels = g.shape
    canvas = jnp.stack(lines, 2).reshape(batch, 2 * height, 2 * width, channels)
    return canvas[:, : x.shape[1], : x.shape[2]]


def _pool_back_in_memory(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The same; XLA would keep it as the float32 that its sums are taken in."""
    to_x: Array = jax.lax.optimization_barrier(pool_back_by_taps(x, g))
    return to_x


def _largest_tap(x: Float[Array, "b h w c"]) -> Int[Array, "b h2 w2 c"]:
    """Finds the first largest of each window's nine taps, by number.

    Not by comparing with what was pooled: XLA may compute `x` once more for that, and
    round it otherwise.
    """
    rows, columns = (2 * -(-side // 2) for side in x.shape[1:3])
    border = [(0, 0), (1, rows - x.shape[1]), (1, columns - x.shape[2]), (0, 0)]
    x = jnp.pad(x, border, constant_values=jnp.nan)  # which is larger than nothing
    largest = jnp.full_like(x[:, 1 : rows + 1 : 2, 1 : columns + 1 : 2], -jnp.inf)
    found = jnp.full(largest.shape, CENTRE, jnp.int32)
    for tap in reversed(range(9)):
        i, j = divmod(tap, 3)
        value = x[:, i : i + rows : 2, j : j + columns : 2]
        better = value >= largest
        found = jnp.where(better, tap, found)
        largest = jnp.where(better, value, largest)
    return found


def _forward(x: Array) -> tuple[Array, Array]:
    return max_pool(x), x


def _backward(x: Array, g: Array) -> tuple[Array]:
    to_x: Array = jax.lax.platform_dependent(
        *(x, g),
        cpu=pool_back_by_taps,
        cuda=_pool_back_in_memory,
        default=pool_back,
    )
    return (to_x,)


max_pool.defvjp(_forward, _backward)
