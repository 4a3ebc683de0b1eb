"""Trunks: images -> feature maps. `Trunk` is what all of them have in common."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import within
from tokret.models.masking import Sizes
from tokret.models.preprocessing import IMAGENET, PixelScale
from tokret.shapes import Array, Float

# Features, the true sizes at their depth, and the outputs of stages by name.
TrunkOutput = tuple[Float[Array, "b h2 w2 c"], Sizes, dict[str, Array]]


class Trunk(nn.Module, kw_only=True):
    """The contract of every trunk; modules without pooling and classifier.

    An image in a padded batch has the features that it has alone: what is outside the
    true areas is set to zero before every operation that mixes positions, and those
    zeros are then exactly the convolution's own padding.

    The first stages of a pretrained trunk may be frozen. They are computed as in
    evaluation, by their running statistics, and no gradient enters them. On a CPU the
    early stages are most of a training step: EfficientNet-Lite0 with its first four
    stages frozen trains several times as fast.

    Parameters and statistics are float32 with any `dtype` of the computation. With
    `remat` the activations inside of blocks are computed again for the gradient.

    Raises:
      UserError: if the trunk has fewer stages than `frozen_stages`.
    """

    dtype: Any = jnp.float32
    remat: bool = False
    frozen_stages: int = 0
    pixels: PixelScale = IMAGENET

    def __post_init__(self) -> None:
        super().__post_init__()
        within("frozen_stages", self.frozen_stages, 0, self.num_stages)

    @property
    def num_stages(self) -> int:
        """The number of stages: block1, block2 and so on."""
        raise NotImplementedError

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Names of the modules that are frozen."""
        raise NotImplementedError

    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: Sizes = None, *, train: bool
    ) -> TrunkOutput:
        """Computes the features of normalised images, padded at right and bottom.

        Without `sizes`, true heights and widths, all images fill the canvas. In
        training, dropout is on and batch norms use the batch's own statistics.

        Returns the last stage's features, the true sizes at their depth, and the output
        of every stage under the released names, block1 (the first one) and so on.
        """
        raise NotImplementedError

    def trains(self, stage: int, train: bool) -> bool:
        """Whether a stage's batch norms use the batch's own statistics."""
        return train and stage > self.frozen_stages

    def stop_gradient(self, stage: int, x: Array) -> Array:
        """Ends the gradient after the last frozen stage."""
        return jax.lax.stop_gradient(x) if stage == self.frozen_stages else x

    def maybe_remat(self, kind: type[nn.Module]) -> type[nn.Module]:
        """A class of blocks (x, sizes, train) -> x, rematerialised with `remat`."""
        return nn.remat(kind, static_argnums=(3,)) if self.remat else kind
