"""Images -> descriptors: a trunk and one of the heads."""

import jax.numpy as jnp
from flax import linen as nn

from tokret.errors import UserError
from tokret.models.heads import HeadOutput
from tokret.models.heads.delg import STAGE
from tokret.models.kernels.matmul import statistics_dtype
from tokret.models.layers import l2_normalise
from tokret.models.masking import Sizes
from tokret.models.preprocessing import PixelScale
from tokret.shapes import Array, Float


class RetrievalNet(nn.Module):
    """A `Trunk`, a `Head`, and a local branch for its loss in training, if any."""

    trunk: nn.Module
    head: nn.Module
    local: nn.Module | None = None

    @property
    def pixels(self) -> PixelScale:
        """The scale of the images: its trunk's."""
        scale = self.trunk.pixels
        assert isinstance(scale, PixelScale)
        return scale

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the computation: its trunk's."""
        return jnp.dtype(self.trunk.dtype)

    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """Computes descriptors; for the arguments see `Trunk`.

        Returns:
          L2-normalised descriptors in float32, and the intermediates: the trunk's
          stages block1 ... block5, those of the head, in training those of `local`,
          and `embedding`, the descriptor before normalisation.
        """
        features, sizes, stages = self.trunk(images, sizes, train=train)
        embedding, intermediates = self.head(features, sizes, train=train)
        embedding = embedding.astype(statistics_dtype(embedding))
        intermediates = {**stages, **intermediates, "embedding": embedding}
        if self.local is not None and (train or self.is_initializing()):
            if STAGE not in stages:
                raise UserError(
                    f"local_loss needs a trunk with a stage {STAGE}, which this "
                    "trunk does not have; choose another, or False"
                )
            intermediates |= self.local(stages[STAGE])
        return l2_normalise(embedding), intermediates
