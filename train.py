"""Trains Token: photos with labels -> weights.

    python train.py --config=configs/demo.py --workdir=DIR [--config.FIELD=VALUE ...]

The same command again goes on where the run stopped. DIR holds config.json,
checkpoints/, metrics.jsonl and tensorboard/.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from tokret import command_line, configuration
from tokret.configuration import Config, call, part
from tokret.data import datasets
from tokret.data.augmentation import Augmentation
from tokret.data.streams import Batch, training_batches, validation_batches
from tokret.errors import UserError
from tokret.models import build_model
from tokret.models.arcface import ArcFace
from tokret.training.checkpoints import Checkpoints
from tokret.training.optimiser import Schedule, make_optimiser
from tokret.training.reporting import Reporter
from tokret.training.sharding import make_mesh, padded_classes, to_devices
from tokret.training.state import abstract_state, new_state
from tokret.training.step import jit_step, train_step, validation_step

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, configs/*.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")

GROUPS = {
    *("data", "augmentation", "model", "arcface", "schedule", "optimiser", "mesh"),
    *("evaluation", "run"),
}
FIELDS = {"seed", "batch_size", "epochs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The fields of `config.run`; configs/base.py says what they are."""

    data_dir: str
    log_every: int
    checkpoint_every: int
    keep: int
    threads: int

    def __post_init__(self) -> None:
        for field in ("log_every", "checkpoint_every", "keep", "threads"):
            if getattr(self, field) < 1:
                raise UserError(f"config.run.{field} must be at least 1")


def make_schedule(
    *,
    base: float,
    batch: int,
    warmup: float,
    warmup_epochs: float,
    decay: str,
    epochs: int,
    epoch_steps: int,
    batch_size: int,
) -> Schedule:
    """Turns epochs into steps; a scaling batch of 0 stands for the global batch."""
    return Schedule(
        base=base,
        batch=batch or batch_size,
        warmup=warmup,
        warmup_steps=round(warmup_epochs * epoch_steps),
        steps=epochs * epoch_steps,
        decay=decay,
    )


def validate(
    step: Callable[..., Any], state: Any, batches: Iterable[Batch], mesh: Mesh
) -> dict[str, float]:
    """Returns mean loss, top1 and top5 over all validation photos."""
    sums: dict[str, float] = {}
    for batch in batches:
        on_devices = to_devices(batch, mesh)
        names = ("images", "labels", "weights")
        found = step(state, *(on_devices[name] for name in names))
        sums = {k: sums.get(k, 0.0) + float(v) for k, v in found.items()}
    count = sums.pop("count")
    return {name: total / count for name, total in sums.items()}


def check_finite(loss: float, step: int, workdir: Path) -> None:
    """Stops a run whose loss is no number any more, before it is saved."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}; lower config.schedule.base and start "
            f"into another --workdir ({workdir} keeps its last good checkpoint)"
        )


def train(config: Config, workdir: Path) -> None:
    """Trains from wherever the run is to its end."""
    # What is to be done: every field is somebody's argument, or refused.
    configuration.reject_unknown(config, GROUPS | FIELDS, "config.")
    run = call(Run, "run", part(config, "run", dict))
    augmentation = call(
        Augmentation, "augmentation", part(config, "augmentation", dict)
    )
    mesh = call(make_mesh, "mesh", part(config, "mesh", dict))
    model = call(build_model, "model", part(config, "model", dict))
    batch_size, epochs, seed = (
        part(config, name, int) for name in ("batch_size", "epochs", "seed")
    )

    # The photos.
    dataset = datasets.prepare(run.data_dir, **part(config, "data", dict))
    photos, held_out = dataset.records("train"), dataset.records("validation")
    epoch_steps = len(photos) // batch_size
    if batch_size < 1 or epoch_steps < 1 or epochs < 1:
        raise UserError(
            f"config.batch_size is {batch_size} and config.epochs {epochs}, with "
            f"{len(photos)} training photos: there is not one full batch to train on"
        )
    if batch_size % mesh.size:
        raise UserError(
            f"config.batch_size {batch_size} does not divide among {mesh.size} devices"
        )

    # Model, classifier and optimiser, and where their arrays live.
    schedule = call(
        make_schedule,
        "schedule",
        part(config, "schedule", dict),
        epochs=epochs,
        epoch_steps=epoch_steps,
        batch_size=batch_size,
    )
    optimiser = call(
        functools.partial(make_optimiser, schedule),
        "optimiser",
        part(config, "optimiser", dict),
    )
    classes = dataset.classes
    classifier = call(
        functools.partial(ArcFace, classes, padded_classes(classes, mesh)),
        "arcface",
        part(config, "arcface", dict),
    )
    parts = (seed, model, classifier, optimiser, mesh)
    abstract = abstract_state(*parts)
    modules: dict[str, Any] = {"model": model, "classifier": classifier, "mesh": mesh}
    do_step = jit_step(
        functools.partial(train_step, **modules, optimiser=optimiser, seed=seed),
        abstract,
        mesh,
        trains=True,
    )
    do_validation = jit_step(
        functools.partial(validation_step, **modules), abstract, mesh, trains=False
    )

    # From here on something is written.
    workdir.mkdir(parents=True, exist_ok=True)
    configuration.settle(config, workdir / "config.json", ("run",))
    steps = epochs * epoch_steps
    with Checkpoints(workdir, keep=run.keep) as checkpoints:
        # Resuming: the run's own newest checkpoint, else initial weights of the seed.
        first = checkpoints.latest_step()
        if first is None:
            first, state = 0, new_state(*parts)
        else:
            state = checkpoints.restore(abstract, first)
        print(
            f"{dataset.name}: {len(photos)} photos of {classes} classes, "
            f"{len(held_out)} for validation; steps {first} to {steps}, "
            f"{epoch_steps} an epoch; {mesh.size} {jax.devices()[0].device_kind}",
            flush=True,
        )
        if first == steps:
            return

        # The stream is decided by the seed and the step: nothing of it is saved.
        stream = training_batches(
            photos,
            augmentation,
            batch_size=batch_size,
            seed=seed,
            first_step=first,
            process=(jax.process_index(), jax.process_count()),
            threads=run.threads,
        )
        with Reporter(
            workdir, first_step=first, steps=steps, batch_size=batch_size
        ) as reporter:
            for step in range(first + 1, steps + 1):
                batch = to_devices(next(stream), mesh)
                state, metrics = do_step(state, batch["images"], batch["labels"])
                reporter.advance()

                saves = step % run.checkpoint_every == 0 or step == steps
                if step % run.log_every == 0 or saves:
                    values = {name: float(value) for name, value in metrics.items()}
                    check_finite(values["loss"], step, workdir)
                    rate = np.asarray(schedule(step - 1)).item()
                    reporter.train(step, values | {"learning_rate": rate})
                if saves:
                    checkpoints.save(state)
                if step % epoch_steps == 0:
                    batches = validation_batches(
                        held_out,
                        size=augmentation.size,
                        batch_size=batch_size,
                        process=(jax.process_index(), jax.process_count()),
                        threads=run.threads,
                    )
                    found = validate(do_validation, state, batches, mesh)
                    reporter.validation(step, step // epoch_steps, found)


def main() -> None:
    """Reads the flags."""
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("train.py needs --config=configs/NAME.py and --workdir=DIR")
    train(command_line.plain(CONFIG.value), Path(WORKDIR.value).expanduser())


if __name__ == "__main__":
    command_line.run(main)
