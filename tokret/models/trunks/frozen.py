"""First stages of a pretrained trunk that stand still while the rest learns.

They are computed as in evaluation, by their running statistics, and no gradient enters
them. On a CPU the early stages are most of a training step: EfficientNet-Lite0 with its
first four stages frozen trains several times as fast.
"""

import dataclasses

import jax

from tokret.arguments import within
from tokret.shapes import Array, Float


@dataclasses.dataclass(frozen=True)
class Frozen:
    """How many of a trunk's stages stand still.

    Attributes:
      stages: 0 for none; n for block1 to blockn, as the trunk names its stages.
      of: the number of stages that the trunk has.

    Raises:
      UserError: if the trunk has fewer stages.
    """

    stages: int
    of: int

    def __post_init__(self) -> None:
        within("model.frozen_stages", self.stages, 0, self.of)

    def learns(self, stage: int, train: bool) -> bool:
        """Whether a stage's batch norms use the batch's own statistics."""
        return train and stage > self.stages

    def leave(self, stage: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Ends the gradient where the last frozen stage ends; `x` is as it was."""
        return jax.lax.stop_gradient(x) if stage == self.stages else x
