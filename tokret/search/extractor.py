"""The model that extracts an index's descriptors."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tokret.errors import UserError
from tokret.evaluation.options import choose_checkpoint, make_settings
from tokret.evaluation.systems import ModelSystem, model_systems
from tokret.retrieval.store.record import weights_digest
from tokret.search.catalogue import ModelInfo
from tokret.training.checkpoint_metadata import read_config


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A restored model: its system, which extracts, and its entry in a catalogue."""

    system: ModelSystem
    model: ModelInfo


def load_extractor(
    checkpoint: Path,
    ema: bool,
    longest_side: int | None,
    scales: Sequence[float] | None,
    segments: Path,
    log: Callable[[str], None],
) -> Extractor:
    """Restores a model that extracts descriptors into stores below `segments`.

    Args:
      checkpoint: folder of a run or a conversion, whose newest checkpoint is taken, or
        of one checkpoint.
      ema: whether the EMA of the weights is taken for them.
      longest_side: of a photo, in pixels; None for the run's own.
      scales: factors of the sides; None for the run's own.
      segments: folder of the stores.
      log: called with lines on what is going to be computed.

    Raises:
      UserError: if there is no checkpoint, or a value is out of range.
    """
    if not checkpoint.is_dir():
        raise UserError(
            f"checkpoint={checkpoint} is not a folder; name the folder of a run, of a "
            "conversion, or of one checkpoint"
        )
    is_run = (checkpoint / "checkpoints").is_dir()
    path = str(checkpoint)
    workdir, alone = (path, None) if is_run else (None, path)
    chosen, _ = choose_checkpoint(workdir, alone, None)
    config = read_config(chosen)
    settings = make_settings(config, longest_side, scales)
    system, _ = model_systems(config, settings, chosen, ema, segments, log)
    system = dataclasses.replace(system, folder=segments)
    model = ModelInfo(
        str(checkpoint.resolve()),
        ema,
        weights_digest(system.variables),
        settings.longest_side,
        tuple(float(scale) for scale in settings.scales),
    )
    return Extractor(system, model)
