"""Trains Token: photos with labels -> weights.

    python train.py --config=configs/demo.py --workdir=DIR [--config.FIELD=VALUE ...]

The same command again goes on where the run stopped. DIR holds config.json,
checkpoints/, metrics.jsonl and tensorboard/.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from tokret import command_line, configuration
from tokret.configuration import Config, call, part, within
from tokret.data import datasets
from tokret.data.augmentation import Augmentation
from tokret.data.datasets import Dataset
from tokret.data.streams import training_batches, validation_batches
from tokret.errors import UserError
from tokret.models import build_model
from tokret.retrieval.extraction import Extraction
from tokret.training.checkpoints import Checkpoints
from tokret.training.optimiser import Schedule, make_optimiser
from tokret.training.programs import Programs, make_programs
from tokret.training.reporting import Reporter
from tokret.training.sharding import make_mesh, padded_classes, to_devices
from tokret.training.skipping import Skipping
from tokret.training.start import Start
from tokret.training.state import TrainState, make_classifiers
from tokret.training.weights import list_steps

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, configs/*.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")

GROUPS = {
    *("data", "augmentation", "model", "arcface", "schedule", "optimiser", "mesh"),
    *("init", "evaluation", "run"),
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
    max_skipped: float

    def __post_init__(self) -> None:
        for field in ("log_every", "checkpoint_every", "keep", "threads"):
            within(f"run.{field}", getattr(self, field), 1)
        within("run.max_skipped", self.max_skipped, 0, 1)


class Plan(NamedTuple):
    """All that a run needs, checked, before anything of it is written."""

    dataset: Dataset
    augmentation: Augmentation
    mesh: Mesh
    schedule: Schedule
    programs: Programs
    start: Start
    run: Run
    seed: int
    batch_size: int
    epoch_steps: int


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
    within("schedule.warmup_epochs", warmup_epochs, 0, epochs)
    return Schedule(
        base=base,
        batch=batch or batch_size,
        warmup=warmup,
        warmup_steps=round(warmup_epochs * epoch_steps),
        steps=epochs * epoch_steps,
        decay=decay,
    )


def make_plan(config: Config) -> Plan:
    """Checks the whole config, prepares the photos and builds what a run calls."""
    # Every field is somebody's argument, or refused.
    configuration.reject_unknown(config, GROUPS | FIELDS, "config.")
    groups = {name: part(config, name, dict) for name in GROUPS}
    seed, batch_size, epochs = (
        within(name, part(config, name, int), least, 2**32)
        for name, least in (("seed", 0), ("batch_size", 1), ("epochs", 1))
    )
    run = call(Run, "run", groups["run"])
    augmentation = call(Augmentation, "augmentation", groups["augmentation"])
    call(Extraction, "evaluation", groups["evaluation"])  # refused now, not at the end
    start = call(Start, "init", groups["init"])
    mesh = call(make_mesh, "mesh", groups["mesh"])
    model = call(build_model, "model", groups["model"])
    if batch_size % mesh.size:
        raise UserError(
            f"config.batch_size {batch_size} does not divide among {mesh.size} devices"
        )

    dataset = call(datasets.prepare, "data", groups["data"], data_dir=run.data_dir)
    photos = len(dataset.records("train"))
    epoch_steps = photos // batch_size
    if epoch_steps < 1:
        raise UserError(
            f"config.batch_size is {batch_size}, but {dataset.name} has only {photos} "
            "training photos; lower it"
        )
    lengths = {"epochs": epochs, "epoch_steps": epoch_steps, "batch_size": batch_size}
    schedule = call(make_schedule, "schedule", groups["schedule"], **lengths)
    optimiser = call(
        functools.partial(make_optimiser, schedule), "optimiser", groups["optimiser"]
    )
    rows = padded_classes(dataset.classes, mesh)
    made = functools.partial(make_classifiers, model, dataset.classes, rows)
    classifiers = call(made, "arcface", groups["arcface"])
    programs = make_programs(model, classifiers, optimiser, mesh, seed)
    return Plan(
        *(dataset, augmentation, mesh, schedule, programs),
        *(start, run, seed, batch_size, epoch_steps),
    )


def validate(plan: Plan, state: Any, say: Callable[[str], None]) -> dict[str, float]:
    """Returns mean loss, top1 and top5 over all validation photos."""
    records = plan.dataset.records("validation")
    skipping = Skipping(records, most=plan.run.max_skipped, say=say)
    batches = validation_batches(
        records,
        size=plan.augmentation.size,
        batch_size=plan.batch_size,
        process=(jax.process_index(), jax.process_count()),
        threads=plan.run.threads,
    )
    sums: dict[str, float] = {}
    for batch in batches:
        arrays = to_devices(skipping.sift(batch), plan.mesh)
        names = ("images", "labels", "weights")
        found = plan.programs.validate(state, *(arrays[name] for name in names))
        sums = {k: sums.get(k, 0.0) + float(v) for k, v in found.items()}
    skipping.report()
    count = sums.pop("count")
    return {name: total / count for name, total in sums.items()}


def check_finite(metrics: dict[str, float], step: int, saved: int | None) -> None:
    """Stops a run whose loss or weights are no numbers any more, before it is saved."""
    for name in ("loss", "weight_norm"):
        if not math.isfinite(metrics[name]):
            raise UserError(
                f"the {name} is {metrics[name]} after step {step}; lower "
                "config.schedule.base and start into another --workdir (checkpoints "
                f"of this run: {'none' if saved is None else f'up to step {saved}'})"
            )


def initial_state(plan: Plan, config: Config) -> TrainState:
    """Makes the state that a new run begins with."""
    state, abstract = plan.programs.new_state(), plan.programs.abstract
    drawn, shapes = (
        {"params": of.params["model"], "batch_stats": of.batch_stats}
        for of in (state, abstract)
    )
    weights = plan.start.overlay(drawn, shapes, part(config, "model", dict))
    params = {**state.params, "model": weights["params"]}
    return dataclasses.replace(state, params=params, batch_stats=weights["batch_stats"])


def train(config: Config, workdir: Path) -> None:
    """Trains from wherever the run is to its end."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir: {workdir} is a file; name a folder")
    plan = make_plan(config)
    steps, run = plan.schedule.steps, plan.run
    # Resuming: the run's own newest checkpoint, else the weights that config.init
    # names, of the whole model or its trunk, else those of the seed.
    saved = list_steps(workdir)
    state = None if saved else initial_state(plan, config)

    # From here on something is written into the workdir.
    workdir.mkdir(parents=True, exist_ok=True)
    found = {**config, "dataset": plan.dataset.identity()}
    configuration.settle(found, workdir / "config.json", ("run",))
    with Checkpoints(workdir, keep=run.keep) as checkpoints:
        first = max(saved, default=0)
        if state is None:
            state = checkpoints.restore(plan.programs.abstract, first)
        print(
            f"{plan.dataset.name}: {len(plan.dataset.records('train'))} photos of "
            f"{plan.dataset.classes} classes; steps {first} to {steps}, "
            f"{plan.epoch_steps} an epoch; {plan.mesh.size} "
            f"{jax.devices()[0].device_kind}",
            flush=True,
        )
        reporter = Reporter(
            workdir, first_step=first, steps=steps, batch_size=plan.batch_size
        )
        # The stream is decided by the seed and the step: nothing of it is saved.
        records = plan.dataset.records("train")
        skipping = Skipping(records, most=run.max_skipped, say=reporter.say)
        stream = training_batches(
            records,
            plan.augmentation,
            batch_size=plan.batch_size,
            seed=plan.seed,
            first_step=first,
            process=(jax.process_index(), jax.process_count()),
            threads=run.threads,
        )
        with reporter:
            for step in range(first + 1, steps + 1):
                batch = to_devices(skipping.sift(next(stream)), plan.mesh)
                state, metrics = plan.programs.train(
                    state, batch["images"], batch["labels"]
                )
                reporter.advance()
                saves = step % run.checkpoint_every == 0 or step == steps
                if step % run.log_every == 0 or saves:
                    values = {name: float(value) for name, value in metrics.items()}
                    check_finite(values, step, checkpoints.latest_step())
                    rate = float(plan.schedule(step - 1))
                    skipped = {"learning_rate": rate, "skipped": skipping.report()}
                    reporter.train(step, values | skipped)
                # Before saving: a run that is killed here does it again.
                if step % plan.epoch_steps == 0 and plan.dataset.has("validation"):
                    epoch = step // plan.epoch_steps
                    measured = validate(plan, state, reporter.say)
                    reporter.validation(step, epoch, measured)
                if step % plan.epoch_steps == 0:
                    skipping.new_epoch()
                if saves:
                    checkpoints.save(state)


def main() -> None:
    """Reads the flags."""
    if CONFIG.value is None or not WORKDIR.value:
        raise UserError("train.py needs --config=configs/NAME.py and --workdir=DIR")
    train(command_line.plain(CONFIG.value), Path(WORKDIR.value).expanduser())


if __name__ == "__main__":
    command_line.run(main)
