"""A config, checked and turned into all that a run calls."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tokret.arguments import reject_unknown, within
from tokret.configuration import Config, call, part
from tokret.data import datasets
from tokret.data.augmentation import Augmentation
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.extraction import Extraction
from tokret.runtime import cluster
from tokret.training.initial_weights import Start
from tokret.training.optimiser import (
    Optimiser,
    Schedule,
    keep_still,
    make_optimiser,
)
from tokret.training.retention import Retention
from tokret.training.sharding import make_mesh, padded_classes
from tokret.training.state import TrainState, make_classifiers, shardings_of
from tokret.training.step import CompiledSteps, compile_steps
from tokret.training.updates import Updating
from tokret.training.utilisation import peak_images

GROUPS = {
    *("data", "augmentation", "model", "arcface", "schedule", "optimiser", "mesh"),
    *("init", "updates", "evaluation", "run"),
}
FIELDS = {"seed", "batch_size", "epochs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The fields of `config.run`; configs/base.py says what they are."""

    data_dir: str
    compilation_cache: str
    log_every: int
    checkpoint_every: int
    keep: int
    keep_best: str
    threads: int
    max_skipped_fraction: float

    def __post_init__(self) -> None:
        for field in ("log_every", "checkpoint_every", "threads"):
            within(f"run.{field}", getattr(self, field), 1)
        within("run.max_skipped_fraction", self.max_skipped_fraction, 0, 1)
        _ = self.retention  # refused now, not at the first checkpoint

    @property
    def retention(self) -> Retention:
        """Which checkpoints are kept."""
        return Retention(keep=self.keep, keep_best=self.keep_best)


class Plan(NamedTuple):
    """All that a run needs, checked, before anything of it is written."""

    dataset: Dataset
    augmentation: Augmentation
    mesh: Mesh
    schedule: Schedule
    programs: CompiledSteps
    start: Start
    updating: Updating
    run: Run
    seed: int
    batch_size: int
    epoch_steps: int
    peak_images: Callable[[], float | None]


def make_schedule(
    *,
    base_lr: float,
    reference_batch_size: int,
    warmup_init_lr: float,
    warmup_epochs: float,
    decay: str,
    epochs: int,
    epoch_steps: int,
    batch_size: int,
) -> Schedule:
    """Turns epochs into steps; a scaling batch of 0 stands for the global batch."""
    within("schedule.warmup_epochs", warmup_epochs, 0, epochs)
    return Schedule(
        base_lr=base_lr,
        reference_batch_size=reference_batch_size or batch_size,
        warmup_init_lr=warmup_init_lr,
        warmup_steps=round(warmup_epochs * epoch_steps),
        steps=epochs * epoch_steps,
        decay=decay,
    )


def make_update(schedule: Schedule, epoch_steps: int, fields: Config) -> Optimiser:
    """Makes the optimiser; turns the trunk's frozen epochs into steps."""

    def made(*, name: str, frozen_epochs: float, **options: Any) -> Optimiser:
        within("optimiser.frozen_epochs", frozen_epochs, 0, 1e6)
        frozen = round(frozen_epochs * epoch_steps)
        return make_optimiser(schedule, name=name, frozen_steps=frozen, **options)

    return call(made, "optimiser", fields)


class Checked(NamedTuple):
    """A config's fields that need no photos to be checked, and what they make."""

    groups: dict[str, Config]
    run: Run
    augmentation: Augmentation
    start: Start
    updating: Updating
    mesh: Mesh
    shard_optimiser: bool
    model: RetrievalNet
    seed: int
    batch_size: int
    epochs: int


class Recipe(NamedTuple):
    """What follows from a checked config and numbers of photos and classes."""

    schedule: Schedule
    programs: CompiledSteps
    epoch_steps: int
    peak_images: Callable[[], float | None]


def lay_out(
    devices: Sequence[Any], *, data: int, model: int, shard_optimiser: bool
) -> tuple[Mesh, bool]:
    """Makes the mesh; says whether the optimiser's state is split over all of it."""
    return make_mesh(devices, data=data, model=model), shard_optimiser


def check(config: Config, devices: Sequence[Any]) -> Checked:
    """Checks all of a config that can be checked before its photos are there.

    Args:
      config: the whole config.
      devices: that the mesh is made of.

    Raises:
      UserError: for a field that is missing, that nothing reads or that cannot be.
    """
    # Every field is somebody's argument, or refused.
    reject_unknown(config, GROUPS | FIELDS, "config.")
    groups = {name: part(config, name, dict) for name in GROUPS}
    seed, batch_size, epochs = (
        within(name, part(config, name, int), least, 2**32)
        for name, least in (("seed", 0), ("batch_size", 1), ("epochs", 1))
    )
    call(Extraction, "evaluation", groups["evaluation"])  # refused now, not at the end
    updating = call(Updating, "updates", groups["updates"])
    mesh, shard_optimiser = call(
        functools.partial(lay_out, devices), "mesh", groups["mesh"]
    )
    if batch_size % (mesh.size * updating.grad_accum_steps):
        raise UserError(
            f"config.batch_size {batch_size} does not divide among {mesh.size} devices "
            f"and {updating.grad_accum_steps} parts (config.updates.grad_accum_steps)"
        )
    return Checked(
        groups=groups,
        run=call(Run, "run", groups["run"]),
        augmentation=call(Augmentation, "augmentation", groups["augmentation"]),
        start=call(Start, "init", groups["init"]),
        updating=updating,
        mesh=mesh,
        shard_optimiser=shard_optimiser,
        model=call(build_model, "model", groups["model"]),
        seed=seed,
        batch_size=batch_size,
        epochs=epochs,
    )


def make_recipe(checked: Checked, *, photos: int, classes: int, name: str) -> Recipe:
    """Builds what a run calls; nothing is compiled, and no device is touched.

    Args:
      checked: the config.
      photos: photos to train with.
      classes: their classes.
      name: the dataset's, for errors.

    Raises:
      UserError: for a field that is not one of a module's, or too few photos.
    """
    groups, mesh, batch_size = checked.groups, checked.mesh, checked.batch_size
    epoch_steps = photos // batch_size
    if epoch_steps < 1:
        raise UserError(
            f"config.batch_size is {batch_size}, but {name} has only {photos} "
            "training photos; lower it"
        )
    lengths = {"epochs": checked.epochs, "batch_size": batch_size}
    schedule = call(
        make_schedule,
        "schedule",
        groups["schedule"],
        epoch_steps=epoch_steps,
        **lengths,
    )
    optimiser = make_update(schedule, epoch_steps, groups["optimiser"])
    if checked.model.trunk.frozen_modules:
        optimiser = keep_still(optimiser, checked.model.trunk.frozen_modules)
    rows = padded_classes(classes, mesh)
    made = functools.partial(make_classifiers, checked.model, classes, rows)
    classifiers = call(made, "arcface", groups["arcface"])
    programs = compile_steps(
        checked.model,
        classifiers,
        optimiser,
        mesh,
        checked.seed,
        checked.updating,
        checked.shard_optimiser,
    )
    state = programs.abstract
    peak = functools.partial(
        peak_images,
        list(mesh.devices.flat),
        checked.model,
        {"params": state.params["model"], "batch_stats": state.batch_stats},
        classifiers,
        checked.augmentation.size,
    )
    return Recipe(schedule, programs, epoch_steps, peak)


def make_plan(config: Config) -> Plan:
    """Checks the whole config, prepares the photos and builds what a run calls."""
    checked = check(config, jax.devices())
    data_dir = checked.run.data_dir
    fields = checked.groups["data"]
    dataset = cluster.first_alone(
        lambda: call(datasets.prepare, "data", fields, data_dir=data_dir), "dataset"
    )
    photos = len(dataset.records("train"))
    recipe = make_recipe(
        checked, photos=photos, classes=dataset.classes, name=dataset.name
    )
    programs = recipe.programs._replace(
        train=cluster.compiled_together(recipe.programs.train, "training"),
        validate=cluster.compiled_together(recipe.programs.validate, "validation"),
    )
    return Plan(
        dataset=dataset,
        augmentation=checked.augmentation,
        mesh=checked.mesh,
        schedule=recipe.schedule,
        programs=programs,
        start=checked.start,
        updating=checked.updating,
        run=checked.run,
        seed=checked.seed,
        batch_size=checked.batch_size,
        epoch_steps=recipe.epoch_steps,
        peak_images=recipe.peak_images,
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
    # Not the same memory twice: the first step gives it away.
    copied = jax.jit(
        functools.partial(jax.tree.map, jnp.copy),
        out_shardings=shardings_of(abstract.ema_params),
    )
    return dataclasses.replace(
        state,
        params=params,
        batch_stats=weights["batch_stats"],
        ema_params=copied(weights["params"]) if state.ema_params else {},
    )
