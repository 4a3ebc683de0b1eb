"""True areas inside padded canvases: marked, and zero outside."""

import jax.numpy as jnp

from tokret.shapes import Array, Bool, Float, Int


def halve(sizes: Int[Array, "b 2"] | None) -> Int[Array, "b 2"] | None:
    """The true sides after a stride of 2: every such layer maps n to (n + 1) // 2."""
    return None if sizes is None else (sizes + 1) // 2


def inside(sizes: Int[Array, "b 2"], height: int, width: int) -> Bool[Array, "b h w"]:
    """Marks the positions of each image's true area, [height, width] at the left top.

    Args:
      sizes: true heights and widths.
      height: the canvas's height.
      width: the canvas's width.
    """
    rows = jnp.arange(height) < sizes[:, :1]  # [b, h]
    columns = jnp.arange(width) < sizes[:, 1:]  # [b, w]
    return rows[:, :, None] & columns[:, None, :]


def zero_outside(
    x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None
) -> Float[Array, "b h w c"]:
    """Sets everything outside the true areas to zero; without sizes, nothing."""
    if sizes is None:
        return x
    return jnp.where(inside(sizes, *x.shape[1:3])[..., None], x, 0)
