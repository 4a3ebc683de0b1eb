"""True areas of images in padded batches: masks, and zeros in the padding."""

import jax.numpy as jnp

from tokret.shapes import Array, Bool, Float, Int

# True heights and widths of the images of a batch; None if all fill the canvas.
Sizes = Int[Array, "b 2"] | None


def downsampled(sizes: Sizes) -> Sizes:
    """The true sizes after a stride of 2: every such layer maps n to (n + 1) // 2."""
    return None if sizes is None else (sizes + 1) // 2


def valid_mask(sizes: Sizes, x: Float[Array, "b h w c"]) -> Bool[Array, "b h w"] | None:
    """Marks the true area of each image of a padded batch `x`, at the top left."""
    if sizes is None:
        return None
    rows = jnp.arange(x.shape[1]) < sizes[:, :1]  # [b, h]
    columns = jnp.arange(x.shape[2]) < sizes[:, 1:]  # [b, w]
    return rows[:, :, None] & columns[:, None, :]


def mask_padding(x: Float[Array, "b h w c"], sizes: Sizes) -> Float[Array, "b h w c"]:
    """Sets everything outside the true areas to zero; without sizes, nothing."""
    mask = valid_mask(sizes, x)
    return x if mask is None else jnp.where(mask[..., None], x, 0)
