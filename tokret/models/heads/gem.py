"""GeM: generalised-mean pooling (Radenovic et al., TPAMI 2019, section 3.2).

Then L2 normalisation and a learned whitening, a linear layer (their section 3.3), as
the released code of the compared methods has it: a 1x1 convolution there. And SOLAR:
second-order attention, then GeM (Ng et al., ECCV 2020, section 3).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.heads import FeatureMap, Head, HeadOutput
from tokret.models.kernels.matmul import statistics_dtype
from tokret.models.layers import Linear, l2_normalise
from tokret.models.masking import Sizes, valid_mask
from tokret.models.second_order import SecondOrderAttention
from tokret.shapes import Array, Float

EPSILON = 1e-6  # values below are pooled as this one


def generalised_mean(x: FeatureMap, sizes: Sizes, p: float) -> Float[Array, "b c"]:
    """Returns the p-th root of the mean over positions of the p-th powers.

    With p = 1 it is the mean; the larger p, the closer it is to the maximum.
    """
    x = jnp.maximum(x.astype(statistics_dtype(x)), EPSILON)
    mask = valid_mask(sizes, x)
    mask = jnp.ones((*x.shape[:3], 1), bool) if mask is None else mask[..., None]
    x = jnp.where(mask, x, EPSILON)
    # Powers of fractions of the maximum: none overflows, whatever p is. The result does
    # not depend on the divisor, so neither does its gradient.
    peak = jax.lax.stop_gradient(jnp.max(x, axis=(1, 2), keepdims=True))
    powers = jnp.where(mask, (x / peak) ** p, 0)
    mean = jnp.sum(powers, axis=(1, 2)) / jnp.sum(mask, axis=(1, 2))
    return peak[:, 0, 0] * mean ** (1 / p)


def whiten(pooled: Float[Array, "b c"], dim: int, dtype: Any) -> Float[Array, "b d"]:
    """Learned whitening; its layer, `whiten`, is one of the calling module."""
    return Linear(dim, dtype, name="whiten")(pooled)


class GeMHead(Head):
    """Generalised mean, then whitening; DELG's global branch too.

    Without `whiten` nothing is learned: the embedding has the trunk's channels.
    """

    p: float = 3.0
    whiten: bool = True

    @nn.compact
    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """See `Head`; the intermediate pooled [b, c] is the generalised mean."""
        pooled = generalised_mean(features, sizes, self.p)
        intermediates = {"pooled": pooled}
        if not self.whiten:
            return pooled, intermediates
        return whiten(l2_normalise(pooled), self.dim, self.dtype), intermediates


class SolarHead(Head):
    """A second-order block of half the channels, generalised mean, whitening.

    Their second-order loss is no part of the paper's comparison, whose SOLAR is trained
    with ArcFace like the others. Its trunk may have such a block too: "resnet101_soa4".
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
