"""NetVLAD (Arandjelovic et al., CVPR 2016, section 3.1), as the released rival has it.

Local features as Token's: reduced, then one layer of self-attention. Against the paper
of NetVLAD, features and clusters are compared by their dot product alone, and neither
the clusters' sums nor the whole is normalised before the projection.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import within
from tokret.errors import UserError
from tokret.models.attention import LocalFeatureSelfAttention
from tokret.models.kernels.batch_norm import BatchNorm
from tokret.models.kernels.matmul import precision_of
from tokret.models.kernels.pointwise import local_features
from tokret.models.layers import Intermediates, linear
from tokret.models.masking import inside, zero_outside
from tokret.models.normalisation import statistics_dtype
from tokret.shapes import Array, Bool, Float, Int


def residuals(
    x: Float[Array, "b n d"],
    centroids: Float[Array, "d k"],
    mask: Bool[Array, "b n"] | None,
) -> tuple[Float[Array, "b k d"], Float[Array, "b k n"]]:
    """Sums the features' distances from the centroids, by how much each is theirs.

    Args:
      x: local features.
      centroids: the clusters' centres, one a column.
      mask: True where a feature exists; None if all do.

    Returns:
      Sums over positions of a (x - c), and a, the softmax over the CLUSTERS of x . c,
      zero where `mask` is False. Both in float32.
    """
    # In float32: the two terms of the difference may be nearly the same.
    x = x.astype(statistics_dtype(x))
    centroids = centroids.astype(x.dtype)
    precision = precision_of(x.dtype)
    logits = jnp.einsum("bnd,dk->bkn", x, centroids, precision=precision)
    weights = jax.nn.softmax(logits, axis=1)
    if mask is not None:
        weights = jnp.where(mask[:, None, :], weights, 0)
    # sum of a x - (sum of a) c: nothing with axes n, k and d at once.
    sums = jnp.einsum("bkn,bnd->bkd", weights, x, precision=precision)
    shares = jnp.sum(weights, axis=-1, keepdims=True)  # [b, k, 1]
    return sums - shares * centroids.T, weights


class NetVLADHead(nn.Module):
    """Local features, their residuals from the centroids, one descriptor.

    Attributes:
      dim: dimensions of the embedding, channels of the local features.
      clusters: number of centroids (released: 4).
      num_heads: heads of the attention.
      dropout: rate in the attention.
      drop_path: rate at which an example skips a residual branch.
      dtype: dtype of the computation.
    """

    dim: int = 1024
    clusters: int = 4
    num_heads: int = 8
    dropout: float = 0.1
    drop_path: float = 0.1
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for field in ("dim", "clusters", "num_heads"):
            within(f"model.{field}", getattr(self, field), 1)
        for field in ("dropout", "drop_path"):
            within(f"model.{field}", getattr(self, field), 0, 0.99)
        if self.dim % self.num_heads:
            raise UserError(
                f"config.model.dim {self.dim} does not divide among "
                f"config.model.num_heads {self.num_heads}"
            )
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
          train: whether dropout and batch statistics are on.

        Returns:
          The embedding, lfsa [b, h*w, dim], the local features, attention
          [b, clusters, h, w], and vlad [b, clusters, dim].
        """
        batch, height, width = features.shape[:3]
        mask = None
        if sizes is not None:
            mask = inside(sizes, height, width).reshape(batch, -1)  # [b, n]
        x = zero_outside(features, sizes)
        x = local_features(x, self.dim, self.dtype, train=train)
        x = x.reshape(batch, height * width, self.dim)
        encoder = LocalFeatureSelfAttention(
            self.num_heads, self.dropout, self.drop_path, self.dtype, name="encoder0"
        )
        x = encoder(x, mask, train=train)
        centroids = self.param(
            "centroids",
            nn.initializers.normal(1.0),
            (self.dim, self.clusters),
            jnp.float32,
        )
        vlad, weights = residuals(x, centroids, mask)
        taps: Intermediates = {
            "lfsa": x,
            "attention": weights.reshape(batch, self.clusters, height, width),
            "vlad": vlad,
        }
        joined = vlad.reshape(batch, -1)  # [b, clusters * dim]
        embedding = linear(self.dim, joined.shape[-1], self.dtype, "proj")(joined)
        return BatchNorm(name="proj_bn")(embedding, train=train), taps
