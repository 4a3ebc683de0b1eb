"""What a new run's weights are: another checkpoint's, a trunk's, or the seed's."""

import dataclasses
from pathlib import Path
from typing import Any

from tokret import configuration
from tokret.errors import UserError
from tokret.training.weights import restore_weights

# Fields of config.model that change training, but not what weights mean.
FREE = frozenset(
    "dtype dropout drop_path query_deviation remat local_loss frozen_stages".split()
)


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
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{field}={source} is not the folder of a run or of a conversion: it "
                "holds no config.json"
            )
        config = configuration.load(folder / "config.json")
        theirs = configuration.part(config, "model", dict)
        if self.checkpoint:
            _check_same_model(f"{field}={source}", theirs, model)
            return restore_weights(folder, abstract)[0]
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
        restored, _ = restore_weights(folder, groups, part="trunk")
        return {
            name: {**tree, "trunk": {**tree["trunk"], **restored[name]["trunk"]}}
            for name, tree in variables.items()
        }


def _without_soa4(trunk: str) -> str:
    return trunk.removesuffix("_soa4")


def _check_same_model(
    source: str, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    """Refuses weights of a model that computes something else with them.

    Some fields, as the heads of attentions, leave no trace in names and shapes. Fields
    that one of the two does not give have their released values there.
    """
    for name in theirs.keys() & ours.keys() - FREE:
        if theirs[name] != ours[name]:
            raise UserError(
                f"{source} was made with model.{name} {theirs[name]!r}, but "
                f"config.model.{name} is {ours[name]!r}"
            )
