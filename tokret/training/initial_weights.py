"""A new run's weights: of another checkpoint, of a trunk, or random."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokret.config.tree import InitConfig, ModelConfig
from tokret.errors import UserError
from tokret.io.remote.urls import path_of
from tokret.training.checkpoint_metadata import check_same_model, read_config
from tokret.training.checkpoints import list_steps
from tokret.training.remote_runs import fetch_run
from tokret.training.weights import find_checkpoint, restore_weights


def weights_source(init: InitConfig) -> str:
    """Returns in words where the weights of a new run come from."""
    if init.checkpoint:
        return f"the weights of {init.checkpoint}"
    return f"the trunk of {init.trunk}" if init.trunk else "random weights"


def check_initial_weights(init: InitConfig, model: ModelConfig) -> Path | None:
    """Returns the checkpoint that a config names, if any; reads no array.

    Args:
      init: names a checkpoint, a trunk, or neither.
      model: fields of the model, compared with those of the named weights.

    Raises:
      UserError: if the named weights are missing, or are of another model.
    """
    source = init.checkpoint or init.trunk
    if not source:
        return None
    folder = fetch_run(path_of(source))
    field = "checkpoint" if init.checkpoint else "trunk"
    if not list_steps(folder):
        raise UserError(
            f"{field} is {source!r}; it must be the folder of a run or a conversion, "
            "with a checkpoint"
        )
    checkpoint = find_checkpoint(folder)
    theirs = read_config(checkpoint).model
    if init.checkpoint:
        check_same_model(f"checkpoint {source}", theirs, model)
    elif theirs.trunk not in (model.trunk, _plain_trunk(model)):
        raise UserError(
            f"trunk is {source!r}, a {theirs.trunk}, but the model's trunk is "
            f"{model.trunk}"
        )
    return checkpoint


def _plain_trunk(model: ModelConfig) -> str:
    """The trunk without a second-order block, which is the identity at first."""
    return model.trunk.removesuffix("_soa4")


def load_initial_weights(
    init: InitConfig,
    model: ModelConfig,
    variables: Mapping[str, Any],
    abstract: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Replaces random weights by those that a config names, if it does.

    Args:
      init: names a checkpoint, a trunk, or neither.
      model: fields of the model, compared with those of the named weights.
      variables: random {"params": ..., "batch_stats": ...} of the model.
      abstract: their shapes, dtypes and shardings.

    Raises:
      UserError: if the named weights are missing, or are of another model.
    """
    checkpoint = check_initial_weights(init, model)
    if checkpoint is None:
        return variables
    if init.checkpoint:
        return restore_weights(checkpoint, abstract)
    groups = {name: {"trunk": dict(tree["trunk"])} for name, tree in abstract.items()}
    if read_config(checkpoint).model.trunk != model.trunk:
        for group in groups.values():
            del group["trunk"]["soa4"]
    restored = restore_weights(checkpoint, groups, part="trunk")
    return {
        name: {**tree, "trunk": {**tree["trunk"], **restored[name]["trunk"]}}
        for name, tree in variables.items()
    }
