"""What a new run's weights are: another checkpoint's, a trunk's, or the seed's."""

import dataclasses
from pathlib import Path
from typing import Any

from tokret.configuration import part
from tokret.errors import UserError
from tokret.training.checkpoint_description import check_same_model, read_config
from tokret.training.checkpoints import list_steps
from tokret.training.weights import find_checkpoint, restore_weights


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

    @property
    def words(self) -> str:
        """Says where the weights come from."""
        if self.checkpoint:
            return f"the weights of {self.checkpoint}"
        return f"the trunk of {self.trunk}" if self.trunk else "weights of its seed"

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
        if not list_steps(folder):
            raise UserError(
                f"{field}={source} is not the folder of a run or of a conversion: it "
                "holds no checkpoint"
            )
        checkpoint = find_checkpoint(folder)
        theirs = part(read_config(checkpoint), "model", dict)
        if self.checkpoint:
            check_same_model(f"{field}={source}", theirs, model)
            return restore_weights(checkpoint, abstract)
        # A second-order block between two stages changes nothing at the start.
        if theirs.get("trunk") not in (model["trunk"], _without_soa4(model["trunk"])):
            raise UserError(
                f"{field}={source} holds the trunk {theirs.get('trunk')}, but "
                f"config.model.trunk is {model['trunk']}"
            )
        groups = {
            name: {"trunk": dict(tree["trunk"])} for name, tree in abstract.items()
        }
        if theirs.get("trunk") != model["trunk"]:
            for group in groups.values():
                del group["trunk"]["soa4"]
        restored = restore_weights(checkpoint, groups, part="trunk")
        return {
            name: {**tree, "trunk": {**tree["trunk"], **restored[name]["trunk"]}}
            for name, tree in variables.items()
        }


def _without_soa4(trunk: str) -> str:
    return trunk.removesuffix("_soa4")
