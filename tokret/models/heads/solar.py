"""SOLAR: second-order attention, then GeM (Ng et al., ECCV 2020, section 3).

Their second-order loss is no part of the paper's comparison, whose SOLAR is trained
with ArcFace like the others. Its trunk may have such a block too: "resnet101_soa4".
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import within
from tokret.models.heads.gem import generalised_mean, whitened
from tokret.models.layers import Intermediates
from tokret.models.masking import inside, zero_outside
from tokret.models.normalisation import l2_normalise
from tokret.models.second_order import SecondOrderAttention
from tokret.shapes import Array, Float, Int


class SolarHead(nn.Module):
    """A second-order block of half the channels, generalised mean, whitening.

    Attributes:
      dim: dimensions of the embedding.
      p: the power of the mean (released: 3, not learned).
      dtype: dtype of the computation.
    """

    dim: int = 1024
    p: float = 3.0
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
          train: whether batch statistics are on.

        Returns:
          The embedding, soa [b, h, w, c], the block's output, and pooled [b, c].
        """
        features = zero_outside(features, sizes)
        mask = None if sizes is None else inside(sizes, *features.shape[1:3])
        block = SecondOrderAttention(features.shape[-1] // 2, self.dtype, name="soa")
        x = block(features, mask, train=train)
        pooled = generalised_mean(x, sizes, self.p)
        taps: Intermediates = {"soa": x, "pooled": pooled}
        return whitened(l2_normalise(pooled), self.dim, self.dtype), taps
