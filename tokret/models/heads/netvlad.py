"""NetVLAD (Arandjelovic et al., CVPR 2016, section 3.1), as released with the paper.

Local features as Token's: reduced, then one layer of self-attention. Unlike in the
paper of NetVLAD, features and clusters are compared by their dot product alone, and
neither the clusters' sums nor the whole is normalised before the projection.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.attention import LocalFeatureSelfAttention
from tokret.models.heads import FeatureMap, Head, HeadOutput
from tokret.models.kernels.matmul import einsum, statistics_dtype
from tokret.models.layers import BatchNorm, Linear, local_features
from tokret.models.masking import Sizes, mask_padding, valid_mask
from tokret.shapes import Array, Bool, Float


def residuals(
    x: Float[Array, "b n d"],
    centroids: Float[Array, "d k"],
    mask: Bool[Array, "b n"] | None,
) -> tuple[Float[Array, "b k d"], Float[Array, "b k n"]]:
    """Sums the differences between features and centroids, by soft assignment.

    Returns sums over positions of a (x - c), and a, the softmax over the CLUSTERS of
    x . c, zero where `mask` is False. Both in float32.
    """
    # In float32: the two terms of the difference may be nearly the same.
    x = x.astype(statistics_dtype(x))
    centroids = centroids.astype(x.dtype)
    weights = jax.nn.softmax(einsum("bnd,dk->bkn", x, centroids), axis=1)
    if mask is not None:
        weights = jnp.where(mask[:, None, :], weights, 0)
    # sum of a x - (sum of a) c: no array with axes n, k and d at once.
    sums = einsum("bkn,bnd->bkd", weights, x)
    total = jnp.sum(weights, axis=-1, keepdims=True)  # [b, k, 1]
    return sums - total * centroids.T, weights


class NetVLADHead(Head):
    """Local features, their residuals from the centroids, one descriptor.

    `dim` is also the number of channels of the local features.
    """

    clusters: int = 4
    num_heads: int = 8
    dropout: float = 0.1
    drop_path: float = 0.1

    @nn.compact
    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """See `Head`.

        Intermediates: lfsa [b, h*w, dim], the local features, attention
        [b, clusters, h, w], and vlad [b, clusters, dim].
        """
        batch, height, width = features.shape[:3]
        mask = valid_mask(sizes, features)
        mask = None if mask is None else mask.reshape(batch, -1)  # [b, h*w]
        x = mask_padding(features, sizes)
        x = local_features(x, self.dim, self.dtype, train=train)
        x = x.reshape(batch, height * width, self.dim)
        encoder = LocalFeatureSelfAttention(
            self.num_heads, self.dropout, self.drop_path, self.dtype, name="encoder0"
        )
        x = encoder(x, mask, train=train)
        shape = (self.dim, self.clusters)
        centroids = self.param(
            "centroids", nn.initializers.normal(1.0), shape, jnp.float32
        )
        vlad, weights = residuals(x, centroids, mask)
        maps = weights.reshape(batch, self.clusters, height, width)
        flat = vlad.reshape(batch, -1)  # [b, clusters * dim]
        embedding = Linear(self.dim, self.dtype, name="proj")(flat)
        intermediates = {"lfsa": x, "attention": maps, "vlad": vlad}
        return BatchNorm(name="proj_bn")(embedding, train=train), intermediates
