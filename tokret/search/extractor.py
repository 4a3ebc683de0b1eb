"""The model by which an index describes photos: a checkpoint's, or one converted."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tokret.errors import UserError
from tokret.evaluation.options import choose_checkpoint, make_settings
from tokret.evaluation.systems import ModelSystem, model_systems
from tokret.retrieval.store.record import weights_digest
from tokret.search.catalogue import Maker
from tokret.training.checkpoint_description import read_config


@dataclasses.dataclass(frozen=True)
class Describer:
    """A model, ready to describe, and what an index remembers of it.

    Attributes:
      system: describes parts into stores.
      maker: of the descriptors.
    """

    system: ModelSystem
    maker: Maker


def load_describer(
    checkpoint: Path,
    ema: bool,
    longest_side: int | None,
    scales: Sequence[float] | None,
    parts: Path,
    say: Callable[[str], None],
) -> Describer:
    """Restores a model.

    Args:
      checkpoint: folder of a run or a conversion, of which the newest is taken, or of
        one checkpoint.
      ema: whether the exponential moving average of the weights is taken for them.
      longest_side: of a photo, in pixels; None takes the run's own.
      scales: factors of the sides; None takes the run's own.
      parts: folder of the stores that it writes.
      say: told, in lines, what is going to be computed.

    Raises:
      UserError: if there is no checkpoint, or a value cannot be.
    """
    if not checkpoint.is_dir():
        raise UserError(
            f"--checkpoint={checkpoint} is not a folder; name that of a run "
            "(--workdir of train.py), of a conversion, or of one checkpoint"
        )
    is_run = (checkpoint / "checkpoints").is_dir()
    where = str(checkpoint)
    workdir, alone = (where, None) if is_run else (None, where)
    chosen, _ = choose_checkpoint(workdir, alone, None)
    config = read_config(chosen)
    settings = make_settings(config, longest_side, scales)
    system, _ = model_systems(config, settings, chosen, ema, parts, say)
    system = dataclasses.replace(system, folder=parts)
    maker = Maker(
        str(checkpoint.resolve()),
        ema,
        weights_digest(system.variables),
        settings.longest_side,
        tuple(settings.scales),
    )
    return Describer(system, maker)
