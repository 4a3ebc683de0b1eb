"""DELG's local branch (Cao et al., ECCV 2020, section 3), for its loss in training.

The global branch is GeM. The local one scores and reduces the features of a stage
before the trunk's last; a classifier of their weighted mean trains both. No gradient
flows back into the trunk. Retrieval here uses global descriptors alone, so outside
training the branch is not computed. It has no autoencoder, as released.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.heads import Intermediates
from tokret.models.kernels.matmul import statistics_dtype
from tokret.models.layers import PointwiseConv, l2_normalise, uniform_fan_in
from tokret.shapes import Array, Float

STAGE = "block4"  # of the trunk
# ArcFace over the mean of the local features, as released.
DIM = 128
SCALE = math.sqrt(DIM)
MARGIN = 0.1


class LocalBranch(nn.Module):
    """A stage's features -> their mean in 128 dimensions, weighted by attention.

    Features are L2-normalised over channels. The released code does so over the width
    of the image, an error of the axis: scores and means of its weights differ.
    """

    dim: int = DIM
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Intermediates:
        """Pools the output of `STAGE` for images that fill their canvas.

        Returns local_attention [b, h, w], the scores, and pooled_local [b, dim].
        """
        x = jax.lax.stop_gradient(features)
        xavier = nn.initializers.xavier_uniform()
        logits = PointwiseConv(1, self.dtype, kernel_init=xavier, name="attention")(x)
        scores = nn.softplus(logits.astype(statistics_dtype(logits)))  # [b, h, w, 1]
        reduction = PointwiseConv(
            self.dim, self.dtype, 1, uniform_fan_in, use_bias=True, name="reduction"
        )
        reduced = l2_normalise(reduction(x).astype(scores.dtype))
        return {
            "local_attention": scores[..., 0],
            "pooled_local": jnp.mean(scores * reduced, axis=(1, 2)),
        }
