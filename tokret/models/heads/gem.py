"""GeM: generalised-mean pooling (Radenovic et al., TPAMI 2019, section 3.2).

Then L2 normalisation and a learned whitening, a linear layer (their section 3.3), as
the released rivals have it: a 1x1 convolution there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import within
from tokret.models.layers import Intermediates, linear
from tokret.models.masking import inside
from tokret.models.normalisation import l2_normalise, statistics_dtype
from tokret.shapes import Array, Float, Int

EPSILON = 1e-6  # smallest value that is pooled


def generalised_mean(
    x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, p: float
) -> Float[Array, "b c"]:
    """Returns the p-th root of the mean over positions of the p-th powers.

    Args:
      x: feature maps; values below `EPSILON` count as it.
      sizes: true sizes, or None if all fill the canvas.
      p: 1 is the mean; the larger, the closer to the maximum.
    """
    x = jnp.maximum(x.astype(statistics_dtype(x)), EPSILON)
    if sizes is None:
        exists = jnp.ones((*x.shape[:3], 1), bool)
    else:
        exists = inside(sizes, *x.shape[1:3])[..., None]
    x = jnp.where(exists, x, EPSILON)
    # Powers of shares of the largest value: none overflows, whatever p is. The result
    # does not depend on what is divided by, so neither does its gradient.
    peak = jax.lax.stop_gradient(jnp.max(x, axis=(1, 2), keepdims=True))
    powers = jnp.where(exists, (x / peak) ** p, 0)
    mean = jnp.sum(powers, axis=(1, 2)) / jnp.sum(exists, axis=(1, 2))
    return peak[:, 0, 0] * mean ** (1 / p)


def whitened(pooled: Float[Array, "b c"], dim: int, dtype: Any) -> Float[Array, "b d"]:
    """Learned whitening; its layer, `whiten`, belongs to the module that calls it."""
    return linear(dim, pooled.shape[-1], dtype, "whiten")(pooled)


class GeMHead(nn.Module):
    """Generalised mean, then whitening; DELG's global branch too.

    Attributes:
      dim: dimensions of the embedding; without whitening it has the trunk's channels.
      p: the power (released: 3, not learned); 1 is average pooling.
      whiten: whether there is a whitening; without, there is nothing to learn.
      dtype: dtype of the computation.
    """

    dim: int = 1024
    p: float = 3.0
    whiten: bool = True
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        within("model.dim", self.dim, 1)
        within("model.p", self.p, 1, 1000)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "b h w c"],
        sizes: Int[Array, "b 2"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b d"], Intermediates]:
        """Aggregates a feature map.

        Args:
          features: the trunk's output.
          sizes: true sizes of the feature maps, or None if all fill the canvas.
          train: without effect here.

        Returns:
          The embedding, and pooled [b, c], the generalised mean.
        """
        pooled = generalised_mean(features, sizes, self.p)
        taps: Intermediates = {"pooled": pooled}
        if not self.whiten:
            return pooled, taps
        return whitened(l2_normalise(pooled), self.dim, self.dtype), taps
