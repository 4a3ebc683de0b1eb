"""Heads: feature maps -> embeddings. `Head` is what all of them have in common."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.masking import Sizes
from tokret.shapes import Array, Float

FeatureMap = Float[Array, "b h w c"]
Intermediates = dict[str, Array]  # arrays computed on the way, by name
HeadOutput = tuple[Float[Array, "b d"], Intermediates]


class Head(nn.Module, kw_only=True):
    """The contract of every head.

    An image in a padded batch has the embedding that it has alone: positions outside
    the true areas have no influence on it. Fields of all heads: see
    `tokret.config.models`.
    """

    dim: int = 1024
    dtype: Any = jnp.float32

    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """Aggregates feature maps, of which `sizes` are the true sizes.

        Returns the embedding, before L2 normalisation, and the intermediates.
        """
        raise NotImplementedError
