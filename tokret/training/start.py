"""What a new run's weights are: another checkpoint's, a trunk's, or the seed's."""

import dataclasses
from pathlib import Path
from typing import Any

from tokret import configuration
from tokret.errors import UserError
from tokret.training.weights import restore_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The weights that a run begins with; `config.init`.

    Attributes:
      checkpoint: folder of a run or a conversion whose whole model is taken, without
        its classifier, whose classes are others; "" for none.
      trunk: folder of a run or a conversion whose trunk alone is taken; "" for none.
    """

    checkpoint: str
    trunk: str

    def __post_init__(self) -> None:
        if self.checkpoint and self.trunk:
            raise UserError(
                "config.init.checkpoint and config.init.trunk are both given; the "
                "first has a trunk too, so leave one out"
            )

    def overlay(self, variables: Any, abstract: Any, model: dict[str, Any]) -> Any:
        """Puts the named weights over those that the seed drew.

        Args:
          variables: {"params": ..., "batch_stats": ...} of the model.
          abstract: their shapes, dtypes and shardings.
          model: `config.model`, whose trunk is compared by name first.

        Raises:
          UserError: if the weights are not there, or are another model's.
        """
        source = self.checkpoint or self.trunk
        if not source:
            return variables
        folder = Path(source).expanduser()
        field = "config.init.checkpoint" if self.checkpoint else "config.init.trunk"
        config = configuration.load(folder / "config.json")
        theirs = configuration.part(config, "model", dict).get("trunk")
        if theirs != model["trunk"]:
            raise UserError(
                f"{field}={source} holds a {theirs}, but config.model.trunk is "
                f"{model['trunk']}"
            )
        if self.checkpoint:
            return restore_weights(folder, abstract)[0]
        groups = {name: {"trunk": tree["trunk"]} for name, tree in abstract.items()}
        restored, _ = restore_weights(folder, groups, part="trunk")
        return {name: {**tree, **restored[name]} for name, tree in variables.items()}
