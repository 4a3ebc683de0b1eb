"""A config and a dataset -> all that a training run calls."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tokret.config.parsing import naming
from tokret.config.tree import Config, OptimiserConfig, ScheduleConfig
from tokret.data import datasets
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime import cluster
from tokret.training.initial_weights import load_initial_weights
from tokret.training.optimiser import (
    Optimiser,
    Schedule,
    freeze_modules,
    make_optimiser,
)
from tokret.training.sharding import make_mesh, padded_classes
from tokret.training.state import TrainState, make_classifiers, shardings_of
from tokret.training.step import CompiledSteps, compile_steps
from tokret.training.utilisation import peak_images


class TrainingSetup(NamedTuple):
    """What follows from a config and the numbers of photos and classes.

    Attributes:
      mesh: the devices.
      schedule: learning rates by step; it knows the number of steps.
      programs: jitted initialisation, training and validation.
      epoch_steps: steps of an epoch.
      peak_images: returns the images/s of a model FLOP utilisation of 1, None if the
        devices' peak is not known.
    """

    mesh: Mesh
    schedule: Schedule
    programs: CompiledSteps
    epoch_steps: int
    peak_images: Callable[[], float | None]


class TrainingRun(NamedTuple):
    """A config, its dataset and what follows from both; see `TrainingSetup`."""

    config: Config
    dataset: Dataset
    mesh: Mesh
    schedule: Schedule
    programs: CompiledSteps
    epoch_steps: int
    peak_images: Callable[[], float | None]


def prepare_run(config: Config) -> TrainingRun:
    """Prepares the dataset and builds what the run calls.

    Raises:
      UserError: names the field, the file or the photo that is wrong.
    """
    dataset = prepare_dataset(config)
    photos = len(dataset.records("train"))
    setup = set_up(config, jax.devices(), photos=photos, classes=dataset.classes)
    programs = setup.programs._replace(
        train=cluster.compiled_together(setup.programs.train, "training"),
        validate=cluster.compiled_together(setup.programs.validate, "validation"),
    )
    return TrainingRun(config, dataset, *setup._replace(programs=programs))


def prepare_dataset(config: Config) -> Dataset:
    """Prepares the config's dataset; of several processes the first does it alone.

    Raises:
      UserError: names the field, the file or the photo that is wrong.
    """
    fields = dataclasses.asdict(config.data)
    with naming("config.data", type(config.data)):
        return cluster.first_alone(
            lambda: datasets.prepare(config.run.data_dir, **fields), "dataset"
        )


def make_schedule(
    config: ScheduleConfig, *, epochs: int, epoch_steps: int, batch_size: int
) -> Schedule:
    """Turns epochs into steps; a reference batch of 0 stands for the global batch."""
    return Schedule(
        base_lr=config.base_lr,
        reference_batch_size=config.reference_batch_size or batch_size,
        warmup_init_lr=config.warmup_init_lr,
        warmup_steps=round(config.warmup_epochs * epoch_steps),
        steps=epochs * epoch_steps,
        decay=config.decay,
    )


def make_update(
    schedule: Schedule, epoch_steps: int, config: OptimiserConfig
) -> Optimiser:
    """Makes the optimiser; turns the trunk's frozen epochs into steps."""
    options = dataclasses.asdict(config)
    frozen_steps = round(options.pop("frozen_epochs") * epoch_steps)
    return make_optimiser(schedule, frozen_steps=frozen_steps, **options)


def set_up(
    config: Config,
    devices: Sequence[Any],
    *,
    photos: int,
    classes: int,
    model: RetrievalNet | None = None,
) -> TrainingSetup:
    """Builds what a run calls; nothing is compiled, and no device is touched.

    Args:
      config: the run's.
      devices: those of the mesh.
      photos: number of training photos.
      classes: their classes.
      model: replaces the config's model.

    Raises:
      UserError: for fields that do not fit the devices or the photos.
    """
    mesh = make_mesh(devices, data=config.mesh.data, model=config.mesh.model)
    epoch_steps = count_steps(config, mesh.size, photos)
    schedule = make_schedule(
        config.schedule,
        epochs=config.epochs,
        epoch_steps=epoch_steps,
        batch_size=config.batch_size,
    )
    model = model or build_model(**dataclasses.asdict(config.model))
    optimiser = make_update(schedule, epoch_steps, config.optimiser)
    if model.trunk.frozen_modules:
        optimiser = freeze_modules(optimiser, model.trunk.frozen_modules)
    rows = padded_classes(classes, mesh)
    scale, margin = config.arcface.scale, config.arcface.margin
    classifiers = make_classifiers(model, classes, rows, scale=scale, margin=margin)
    with naming("config.model", type(config.model)):
        programs = compile_steps(
            *(model, classifiers, optimiser, mesh, config.seed),
            grad_accum_steps=config.updates.grad_accum_steps,
            ema_decay=config.updates.ema_decay,
            shard_optimiser=config.mesh.shard_optimiser,
        )
    state = programs.abstract
    peak = functools.partial(
        peak_images,
        list(mesh.devices.flat),
        model,
        {"params": state.params["model"], "batch_stats": state.batch_stats},
        classifiers,
        config.augmentation.size,
    )
    return TrainingSetup(mesh, schedule, programs, epoch_steps, peak)


def count_steps(config: Config, devices: int, photos: int) -> int:
    """Returns the steps of an epoch.

    Raises:
      UserError: if the batch is too large, or does not divide among the devices.
    """
    steps = config.updates.grad_accum_steps
    if config.batch_size % (devices * steps):
        raise UserError(
            f"config.batch_size is {config.batch_size}; it must be a multiple of "
            f"{devices} devices times {steps} config.updates.grad_accum_steps"
        )
    if config.batch_size > photos:
        raise UserError(
            f"config.batch_size is {config.batch_size}; it must be at most the number "
            f"of training photos, {photos}"
        )
    return photos // config.batch_size


def initial_state(run: TrainingRun) -> TrainState:
    """Makes the state of step 0, with the weights that `config.init` names."""
    state, abstract = run.programs.new_state(), run.programs.abstract
    drawn, shapes = (
        {"params": of.params["model"], "batch_stats": of.batch_stats}
        for of in (state, abstract)
    )
    config = run.config
    with naming("config.init", type(config.init)):
        weights = load_initial_weights(config.init, config.model, drawn, shapes)
    params = {**state.params, "model": weights["params"]}
    # Not the same memory twice: the first step donates it.
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
