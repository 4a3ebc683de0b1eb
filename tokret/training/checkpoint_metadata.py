"""What a checkpoint records beside its arrays: enough to rebuild its model.

It is stored in the checkpoint, in Orbax's own JSON:

    format    1; a higher number is of a newer tokret
    tokret    the version that wrote it
    step      number of steps
    measured  metrics of the validation after this step; {} without one
    config    the run's, with the identity of its dataset; or the conversion's
    pixels    mean and deviation that images are normalised by
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokret
from tokret.config import stored
from tokret.config.parsing import parse_group, to_tree
from tokret.config.tree import InferenceConfig, ModelConfig
from tokret.errors import UserError
from tokret.io.regular_files import read_file
from tokret.training.checkpoint_digests import (
    UnreadableError,
    damaged,
    has_digests,
    verify,
)

FORMAT = 1
FILE, FIELD = "_CHECKPOINT_METADATA", "custom_metadata"  # where Orbax stores it
LARGEST = 2**22  # bytes; a larger file is not read
# Fields of config.model that change training, but not what a model computes.
FREE = frozenset(
    "dtype dropout drop_path query_init_std initialiser remat local_loss "
    "frozen_stages".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """What a checkpoint records; see the module's docstring."""

    format: int
    tokret: str
    step: int
    measured: dict[str, float]
    config: InferenceConfig
    pixels: dict[str, list[float]]


def make_metadata(
    config: InferenceConfig, step: int, measured: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Makes the metadata of a checkpoint, in JSON types."""
    metadata = CheckpointMetadata(
        format=FORMAT,
        tokret=tokret.__version__,
        step=step,
        measured=dict(measured or {}),
        config=config,
        pixels=_pixels(config),
    )
    return to_tree(metadata)


def read_metadata(checkpoint: Path) -> CheckpointMetadata:
    """Reads the metadata of a checkpoint.

    Raises:
      UnreadableError: if it is missing, damaged or was made up, or is that of another
        step than the folder is named after.
      UserError: if a newer tokret wrote it, or another program, or nothing can be
        verified.
    """
    try:
        # A link could lead anywhere.
        text = read_file(checkpoint / FILE, LARGEST, follow_links=False)
        outer = json.loads(text)
        found = outer.get(FIELD) if isinstance(outer, dict) else None
        found = found if isinstance(found, dict) else {}
    except UserError as error:
        raise damaged(checkpoint, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(checkpoint, f"{FILE}: {error}") from error
    if "tokret" not in found and not has_digests(checkpoint):
        raise UserError(
            f"{checkpoint}: written by another program; tokret reads only its own "
            "checkpoints"
        )
    verify(checkpoint, only=FILE)
    try:
        version = found.get("format")
        if type(version) is not int:
            raise ValueError("it has no metadata of tokret")
        if version <= FORMAT:
            metadata = parse_group(CheckpointMetadata, found)
            _check_name(checkpoint, metadata.step)
            return metadata
    except UnreadableError:
        raise
    except (ValueError, RecursionError, UserError) as error:
        raise damaged(checkpoint, f"{FILE}: {error}") from error
    raise UserError(
        f"{checkpoint} is of format {version}, which tokret {found.get('tokret')} "
        f"wrote; this is tokret {tokret.__version__}, which reads up to format "
        f"{FORMAT}: install the newer one"
    )


def _check_name(checkpoint: Path, step: int) -> None:
    """Refuses a checkpoint of a run that was copied or renamed to another step."""
    path = checkpoint.absolute()
    if path.parent.name == "checkpoints" and path.name != str(step):
        raise UnreadableError(
            f"{checkpoint}: damaged (it is step {step} under the name {path.name}): "
            "rename or remove it"
        )


def read_config(checkpoint: Path) -> InferenceConfig:
    """Returns the config that a checkpoint's model is rebuilt from.

    This is the config.json of its run if there is one, since a user may change its
    group `evaluation`; otherwise that of the checkpoint itself.

    Raises:
      UserError: if the checkpoint cannot be read, or the two are of different models.
    """
    metadata = read_metadata(checkpoint)
    path = checkpoint.parent.parent / "config.json"
    if checkpoint.parent.name == "checkpoints" and path.exists():
        config = stored.load(path)
        check_same_model(str(checkpoint), metadata.config.model, config.model)
        return config
    return metadata.config


def check_pixels(checkpoint: Path, config: InferenceConfig) -> None:
    """Refuses weights that were trained on images normalised in another way.

    Raises:
      UserError: if they were.
    """
    metadata = read_metadata(checkpoint)
    if metadata.pixels != _pixels(config):
        raise UserError(
            f"{checkpoint} takes images normalised by {metadata.pixels}, but this "
            f"tokret normalises them by {_pixels(config)}; use tokret {metadata.tokret}"
        )


def check_same_model(source: str, theirs: ModelConfig, ours: ModelConfig) -> None:
    """Refuses weights of a model that computes something else with them.

    Some fields, such as the number of attention heads, show in no name and no shape.

    Raises:
      UserError: that `source` is of another model, if the two differ.
    """
    wanted = dataclasses.asdict(ours)
    for name, value in dataclasses.asdict(theirs).items():
        if name in wanted and name not in FREE and wanted[name] != value:
            raise UserError(
                f"{source} is of a model with {name} {value!r}, but the model's {name} "
                f"is {wanted[name]!r}"
            )


def _pixels(config: InferenceConfig) -> dict[str, list[float]]:
    from tokret.models.build import build_model  # imports Flax

    scale = build_model(**dataclasses.asdict(config.model)).pixels
    return {name: list(values) for name, values in scale._asdict().items()}
