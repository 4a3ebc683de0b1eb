"""The model that extracts an index's descriptors."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokret.config import stored
from tokret.config.tree import ExtractionConfig, InferenceConfig
from tokret.errors import UserError
from tokret.evaluation.options import choose_checkpoint, make_settings
from tokret.evaluation.systems import ModelSystem, model_systems
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import shown
from tokret.retrieval.store.record import weights_digest
from tokret.search.catalogue import FROM_CHECKPOINT, WEIGHTS
from tokret.search.catalogue_rows import ModelInfo
from tokret.training.checkpoint_metadata import read_config
from tokret.training.remote_runs import drop_arrays, fetch_run
from tokret.training.weights import find_checkpoint, load_weights, save_weights


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A restored model: its system, which extracts, and its entry in a catalogue."""

    system: ModelSystem
    model: ModelInfo
    config: InferenceConfig  # which the model is rebuilt from


def load_extractor(
    checkpoint: Path,
    ema: bool = False,
    longest_side: int | None = None,
    scales: Sequence[float] | None = None,
) -> Extractor:
    """Restores a model that extracts descriptors.

    Args:
      checkpoint: folder of a run or a conversion, whose newest checkpoint is taken, or
        of one checkpoint.
      ema: whether the EMA of the weights is taken for them.
      longest_side: of a photo, in pixels; None for the run's own.
      scales: factors of the sides; None for the run's own.

    Raises:
      UserError: if there is no checkpoint, or a value is out of range.
    """
    if not fetch_run(checkpoint).is_dir():
        raise UserError(
            f"checkpoint={checkpoint} is not a folder; name the folder of a run, of a "
            "conversion, or of one checkpoint"
        )
    chosen, config = _choose(checkpoint)
    settings = make_settings(config, longest_side, scales)
    extractor = _restore(checkpoint, chosen, config, settings, ema)
    drop_arrays(chosen)
    return extractor


def load_copy(
    folder: Path,
    longest_side: int | None = None,
    scales: Sequence[float] | None = None,
) -> Extractor:
    """Restores a model from an index's own copy, INDEX/weights/COPY.

    Raises:
      UserError: if the copy cannot be used, or a value is out of range.
    """
    with _of_index(folder):
        if not fetch_run(folder).is_dir():
            raise UserError("it is missing")
        chosen, config = _choose(folder)
    settings = make_settings(config, longest_side, scales)
    with _of_index(folder):
        return _restore(folder, chosen, config, settings, ema=False)


@contextlib.contextmanager
def _of_index(copy: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise damaged_copy(copy, str(error)) from error


def _choose(checkpoint: Path) -> tuple[Path, InferenceConfig]:
    is_run = (checkpoint / "checkpoints").is_dir()
    workdir, alone = (checkpoint, None) if is_run else (None, checkpoint)
    chosen, _ = choose_checkpoint(workdir, alone, None)
    return chosen, read_config(chosen)


def _restore(
    checkpoint: Path,
    chosen: Path,
    config: InferenceConfig,
    settings: ExtractionConfig,
    ema: bool,
) -> Extractor:
    nowhere = Path(os.devnull)  # an index writes its own stores
    system, _ = model_systems(
        config, settings, chosen, ema, nowhere, log=lambda line: None
    )
    model = ModelInfo(
        shown(checkpoint.resolve()),
        weights_digest(system.variables),
        settings.longest_side,
        tuple(float(scale) for scale in settings.scales),
        system.model,
    )
    return Extractor(system, model, config)


def restore_copy(
    index: Path, model: ModelInfo, load: Callable[[str], Extractor]
) -> Extractor:
    """Restores the model of an index from its own copy.

    Raises:
      UserError: the copy is damaged, or of another model.
    """
    folder = index / WEIGHTS / model.copy
    extractor = load(model.copy)
    difference = extractor.model.difference(model)
    if difference:
        raise damaged_copy(folder, f"{folder}: {difference}")
    return extractor


def damaged_copy(folder: Path, problem: str) -> UserError:
    """The error for an index's own copy of its model that cannot be used."""
    # Without advice on checkpoints.
    what = problem.partition("; ")[0].removesuffix(": use another checkpoint")
    return UserError(
        f"index={folder.parents[1]}: its copy of the weights cannot be used ({what}); "
        f"{FROM_CHECKPOINT}, or with one of the same weights and no rebuild"
    )


def copy_problem(folder: Path, model: ModelInfo) -> str | None:
    """Returns why an index's own copy of a model is not that model; None if it is."""
    try:
        checkpoint = find_checkpoint(folder)
        config = read_config(checkpoint)
        params, statistics = load_weights(checkpoint)
    except UserError as error:
        return str(error)
    found = ModelInfo(
        "",
        weights_digest({"params": params["model"], "batch_stats": statistics}),
        config.evaluation.longest_side,
        tuple(float(scale) for scale in config.evaluation.scales),
        dataclasses.asdict(config.model),
    )
    difference = found.difference(model)
    return difference and f"{folder}: {difference}"


def save_copy(extractor: Extractor, folder: Path) -> None:
    """Saves the weights and the settings, for `load_extractor` of the new folder."""
    config = InferenceConfig(
        seed=extractor.config.seed,
        model=extractor.config.model,
        evaluation=extractor.system.settings,
    )
    variables = extractor.system.variables
    folder.mkdir(parents=True)
    save_weights(
        folder, {"model": variables["params"]}, variables["batch_stats"], config
    )
    stored.save(config, folder / "config.json")
    publish(folder / "config.json")
