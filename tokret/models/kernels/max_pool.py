"""A ResNet's max-pool, 3x3 with stride 2, and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tokret.shapes import Array, Float, Int

# The taps through which windows read an even or an odd row or column.
EVEN_ODD_TAPS = ((1,), (2, 0))
CENTRE = 4  # the only tap that is never in the padding


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools 3x3 windows around every other position; padding is never the maximum.

    Where several positions of a window have the maximum, the gradient goes to the
    first one, row by row, as in PyTorch and XLA.
    """
    return jax.lax.platform_dependent(x, cpu=pool_taps, default=pool_windows)


def pool_windows(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools by XLA's own operation."""
    return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])


def pool_taps(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Pools as the maximum of nine strided arrays, for a CPU.

    XLA's CPU backend writes the input of its own operation to memory first; this one
    it fuses with the batch norm before. Gain, with the batch norm: 1.8 instead of 5.3
    ms for an image of 512 px (docs/performance.md, "The max-pool as the largest of
    nine").
    """
    rows, columns = (2 * -(-side // 2) - 1 for side in x.shape[1:3])
    padding = [(0, 0), (1, 1), (1, 1), (0, 0)]
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    taps = (x[:, i : i + rows : 2, j : j + columns : 2] for i, j in np.ndindex(3, 3))
    return functools.reduce(jnp.maximum, taps)


def pool_windows_backward(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The gradient as JAX derives it: a select_and_scatter."""
    (to_x,) = jax.vjp(pool_windows, x)[1](g)
    return jnp.asarray(to_x)


def pool_taps_backward(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The gradient, gathered from the one to four windows that contain each position.

    An even row is the middle (tap 1) of one window, an odd row the end (tap 2) of one
    and the start (tap 0) of the next; likewise columns. XLA's CPU backend takes a
    select_and_scatter value by value. Gain on a CPU: 7 instead of 51 ms of a ResNet-50
    step (docs/performance.md, "The max-pool's gradient, gathered").
    """
    largest = _argmax_taps(x)

    def gradient_of_tap(row: int, column: int) -> Array:
        """The gradient of windows whose maximum is at this tap, or zero.

        Tap 0 belongs to the next window: the array is shifted by one.
        """
        selected = jnp.where(largest == 3 * row + column, g, 0)
        next_ = [(0, 0), (0, int(row == 0)), (0, int(column == 0)), (0, 0)]
        return jnp.pad(selected, next_)[:, next_[1][1] :, next_[2][1] :]

    lines = [
        jnp.stack(
            [
                sum(gradient_of_tap(i, j) for i in rows for j in columns)
                for columns in EVEN_ODD_TAPS
            ],
            axis=3,
        )
        for rows in EVEN_ODD_TAPS
    ]
    batch, height, width, channels = g.shape
    # [b, h2, 2, w2, 2, c] -> [b, 2 h2, 2 w2, c]
    to_x = jnp.stack(lines, 2).reshape(batch, 2 * height, 2 * width, channels)
    return to_x[:, : x.shape[1], : x.shape[2]]


def _argmax_taps(x: Float[Array, "b h w c"]) -> Int[Array, "b h2 w2 c"]:
    """Returns the number of the first of each window's nine taps that has the maximum.

    Not by comparison with the pooled values: XLA may recompute `x` for that, and round
    it differently.
    """
    rows, columns = (2 * -(-side // 2) for side in x.shape[1:3])
    padding = [(0, 0), (1, rows - x.shape[1]), (1, columns - x.shape[2]), (0, 0)]
    x = jnp.pad(x, padding, constant_values=jnp.nan)  # compares as False
    largest = jnp.full_like(x[:, 1 : rows + 1 : 2, 1 : columns + 1 : 2], -jnp.inf)
    argmax = jnp.full(largest.shape, CENTRE, jnp.int32)
    for tap in reversed(range(9)):
        i, j = divmod(tap, 3)
        value = x[:, i : i + rows : 2, j : j + columns : 2]
        better = value >= largest
        argmax = jnp.where(better, tap, argmax)
        largest = jnp.where(better, value, largest)
    return argmax


def _forward(x: Array) -> tuple[Array, Array]:
    return max_pool(x), x


def _backward(x: Array, g: Array) -> tuple[Array]:
    to_x: Array = jax.lax.platform_dependent(
        *(x, g),
        cpu=pool_taps_backward,
        # With the barrier it is stored in the dtype of `g`, not as float32 sums. Gain
        # on an H100: 1.4 instead of 3.0 ms of a step (docs/performance.md, "On an
        # H100", "The max-pool's gradient, gathered").
        cuda=lambda *a: jax.lax.optimization_barrier(pool_taps_backward(*a)),
        default=pool_windows_backward,
    )
    return (to_x,)


max_pool.defvjp(_forward, _backward)
