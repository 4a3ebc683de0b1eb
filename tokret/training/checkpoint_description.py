"""What a checkpoint says of itself: enough to rebuild its model without its run.

It lies in the checkpoint, in Orbax's own JSON:

    format    1; a higher number is of a newer tokret
    tokret    the version that wrote it
    step      steps done
    measured  what the validation after this step measured; {} if there was none
    config    the run's, with the identity of its dataset; or the conversion's
    pixels    mean and deviation that images are scaled by
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokret
from tokret import configuration
from tokret.configuration import Config, call, part
from tokret.errors import UserError
from tokret.models.build import build_model

FORMAT = 1
FILE, FIELD = "_CHECKPOINT_METADATA", "custom_metadata"  # where Orbax puts it
LARGEST = 2**22  # bytes of a file that is believed
DEEPEST = 16  # objects and lists within each other

# Fields of config.model that change training, but not what weights mean.
FREE = frozenset(
    "dtype dropout drop_path query_init_std initialiser remat local_loss "
    "frozen_stages".split()
)


class UnreadableError(UserError):
    """A checkpoint that is torn, cut short or damaged: an older one may be whole."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself."""

    step: int
    measured: Mapping[str, float]
    config: Config
    pixels: Mapping[str, Any]
    tokret: str


def describe(
    config: Config, step: int, measured: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Describes a checkpoint, in JSON types.

    Args:
      config: of the run; its group `model` builds the model.
      step: steps done.
      measured: what a validation after this step measured.
    """
    return {
        "format": FORMAT,
        "tokret": tokret.__version__,
        "step": step,
        "measured": dict(measured or {}),
        "config": config,
        "pixels": _pixels(config),
    }


def read_description(checkpoint: Path) -> Description:
    """Reads what a checkpoint says of itself.

    Args:
      checkpoint: its folder.

    Raises:
      UnreadableError: if it is missing, damaged or was made up.
      UserError: if a newer tokret wrote it.
    """
    path = checkpoint / FILE
    try:
        outer = _load(path)
        found = outer.get(FIELD) if isinstance(outer, dict) else outer
        if not isinstance(found, dict) or type(found.get("format")) is not int:
            raise ValueError("it holds no description of tokret's")
        version = found["format"]
        if version > FORMAT:
            raise UserError(
                f"{checkpoint} is of format {version}, which tokret "
                f"{found.get('tokret')} wrote; this is tokret {tokret.__version__}, "
                f"which reads up to format {FORMAT}: install the newer one"
            )
        return _checked(found)
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{path} cannot be read ({error}); remove {checkpoint} to use the "
            "checkpoint before it"
        ) from error


def read_config(checkpoint: Path) -> Config:
    """Returns the config that a checkpoint's model is rebuilt from.

    The config.json of its run is taken where there is one, since how to evaluate may
    be changed there; that of the checkpoint itself where it lies alone.

    Raises:
      UserError: if the checkpoint cannot be read, or they mean different models.
    """
    described = read_description(checkpoint)
    path = checkpoint.parent.parent / "config.json"
    if checkpoint.parent.name == "checkpoints" and path.exists():
        config = configuration.load(path)
        ours = part(config, "model", dict)
        theirs = part(described.config, "model", dict)
        check_same_model(str(checkpoint), theirs, ours)
        return config
    return described.config


def check_pixels(checkpoint: Path, config: Config) -> None:
    """Refuses weights that were trained on images scaled in another way.

    Raises:
      UserError: if they were.
    """
    described = read_description(checkpoint)
    if described.pixels != _pixels(config):
        raise UserError(
            f"{checkpoint} takes images scaled by {dict(described.pixels)}, but this "
            f"tokret scales them by {_pixels(config)}; use tokret {described.tokret}"
        )


def check_same_model(
    source: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> None:
    """Refuses weights of a model that computes something else with them.

    Some fields, as the heads of attentions, leave no trace in names and shapes. Fields
    that one of the two does not give have their released values there.

    Args:
      source: what the weights are called.
      theirs: the group `model` of the config that they were made with.
      ours: that of the config that they are asked for by.

    Raises:
      UserError: if the two differ.
    """
    for name in theirs.keys() & ours.keys() - FREE:
        if theirs[name] != ours[name]:
            raise UserError(
                f"{source} was made with model.{name} {theirs[name]!r}, but "
                f"config.model.{name} is {ours[name]!r}"
            )


def _pixels(config: Config) -> dict[str, list[float]]:
    scale = call(build_model, "model", part(config, "model", dict)).pixels
    return {name: list(values) for name, values in scale._asdict().items()}


def _load(path: Path) -> Any:
    """Reads a JSON file that anybody may have written."""
    # A link could lead anywhere, and a pipe would never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    found = json.loads(text)
    _check_depth(found, DEEPEST)
    return found


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if not left:
        raise ValueError(f"its JSON is more than {DEEPEST} deep")
    for inner in value.values() if isinstance(value, dict) else value:
        _check_depth(inner, left - 1)


def _checked(found: dict[str, Any]) -> Description:
    """Checks types; what a config must hold is seen where it is used."""
    kinds = {"step": int, "tokret": str, "config": dict, "pixels": dict}
    wrong = [name for name, kind in kinds.items() if type(found.get(name)) is not kind]
    measured = found.get("measured")
    numbers = measured.values() if isinstance(measured, dict) else [None]
    wrong += [] if all(type(n) in (int, float) for n in numbers) else ["measured"]
    if wrong:
        raise ValueError(f"its description's {' and '.join(wrong)} cannot be")
    return Description(
        found["step"],
        {name: float(value) for name, value in found["measured"].items()},
        found["config"],
        found["pixels"],
        found["tokret"],
    )
