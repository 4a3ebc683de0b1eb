"""SOLAR: second-order attention, then GeM (Ng et al., ECCV 2020, section 3).

Their second-order loss is no part of the paper's comparison, whose SOLAR is trained
with ArcFace like the others. Its trunk may have such a block too: "resnet101_soa4".
"""

from flax import linen as nn

from tokret.models.heads import FeatureMap, Head, HeadOutput
from tokret.models.heads.gem import generalised_mean, whiten
from tokret.models.layers import l2_normalise
from tokret.models.masking import Sizes
from tokret.models.second_order import SecondOrderAttention


class SolarHead(Head):
    """A second-order block of half the channels, generalised mean, whitening.

    Attributes:
      p: the power of the mean (released: 3, not learned).
    """

    p: float = 3.0

    @nn.compact
    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """See `Head`; intermediates: soa [b, h, w, c] and pooled [b, c]."""
        width = features.shape[-1] // 2
        block = SecondOrderAttention(width, self.dtype, name="soa")
        x = block(features, sizes, train=train)
        pooled = generalised_mean(x, sizes, self.p)
        embedding = whiten(l2_normalise(pooled), self.dim, self.dtype)
        return embedding, {"soa": x, "pooled": pooled}
