"""A config and a dataset -> all that a training run calls."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tokret.config.parsing import naming
from tokret.config.tree import Config
from tokret.data import datasets
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.names import first_names
from tokret.runtime import cluster
from tokret.training.initial_weights import load_initial_weights
from tokret.training.input_order import check_cache
from tokret.training.optimiser import Schedule, freeze_modules, make_optimiser
from tokret.training.sharding import make_mesh, padded_classes
from tokret.training.state import TrainState, make_classifiers, shardings_of
from tokret.training.step import CompiledSteps, compile_steps
from tokret.training.utilisation import peak_images

MAX_STEPS = 2**31 - 1  # the state counts them in int32


class TrainingSetup(NamedTuple):
    """What follows from a config and the numbers of photos and classes.

    `peak_images` returns the images/s of a model FLOP utilisation of 1, None if the
    devices' peak is not known.
    """

    mesh: Mesh
    schedule: Schedule
    programs: CompiledSteps
    epoch_steps: int
    peak_images: Callable[[], float | None]


def prepare_run(config: Config) -> tuple[Dataset, TrainingSetup]:
    """Prepares the dataset and builds what the run calls.

    Of several processes the first prepares the dataset alone.

    Raises:
      UserError: names the field, the file or the photo that is wrong.
    """
    # First what needs no photos, since preparing them may take hours.
    mesh, model = make_mesh_and_model(config, jax.devices())
    fields = dataclasses.asdict(config.data)
    with (
        naming("config.run", type(config.run)),
        naming("config.data", type(config.data)),
    ):
        dataset = cluster.first_alone(
            lambda: datasets.prepare(
                config.run.data_dir, cache_gib=config.run.cache_gib, **fields
            ),
            "dataset",
        )
    check_cache(config, dataset)
    if dataset.classes < 2:
        raise UserError(
            f"config.data: all training photos are of one class, "
            f"{first_names(dataset.class_names)}: the loss is 0 from the start; train "
            "on two classes or more"
        )
    photos = len(dataset.records("train"))
    setup = set_up(config, mesh, model, photos=photos, classes=dataset.classes)
    programs = setup.programs._replace(
        train=cluster.compiled_together(setup.programs.train, "training"),
        validate=cluster.compiled_together(setup.programs.validate, "validation"),
    )
    return dataset, setup._replace(programs=programs)


def make_mesh_and_model(
    config: Config, devices: Sequence[Any]
) -> tuple[Mesh, RetrievalNet]:
    """Makes the mesh of some devices, and the model.

    Raises:
      UserError: for fields that do not fit the devices or one another.
    """
    with naming("config.mesh", type(config.mesh)):
        mesh = make_mesh(devices, data=config.mesh.data, model=config.mesh.model)
    steps = config.updates.grad_accum_steps
    if config.batch_size % (mesh.size * steps):
        raise UserError(
            f"config.batch_size is {config.batch_size}; it must be a multiple of "
            f"{mesh.size} devices times {steps} config.updates.grad_accum_steps"
        )
    with naming("config.model", type(config.model)):
        return mesh, build_model(**dataclasses.asdict(config.model))


def set_up(
    config: Config, mesh: Mesh, model: RetrievalNet, *, photos: int, classes: int
) -> TrainingSetup:
    """Builds what a run calls from the numbers of training photos and their classes.

    Nothing is compiled, and no device is touched.

    Raises:
      UserError: if there are too few photos.
    """
    if config.batch_size > photos:
        raise UserError(
            f"config.batch_size is {config.batch_size}; it must be at most the number "
            f"of training photos, {photos}"
        )
    epoch_steps = photos // config.batch_size
    fields = dataclasses.asdict(config.schedule)
    fields["reference_batch_size"] = fields["reference_batch_size"] or config.batch_size
    warmup_steps = round(fields.pop("warmup_epochs") * epoch_steps)
    steps = config.epochs * epoch_steps
    if steps > MAX_STEPS:
        raise UserError(
            f"config.epochs is {config.epochs}; it must be at most "
            f"{MAX_STEPS // epoch_steps}, of {epoch_steps} steps each"
        )
    restarts = tuple(epoch * epoch_steps for epoch in fields.pop("restarts"))
    schedule = Schedule(
        **fields, warmup_steps=warmup_steps, steps=steps, restart_steps=restarts
    )
    options = dataclasses.asdict(config.optimiser)
    frozen_steps = round(options.pop("frozen_epochs") * epoch_steps)
    optimiser = make_optimiser(schedule, frozen_steps=frozen_steps, **options)
    if model.trunk.frozen_modules:
        optimiser = freeze_modules(optimiser, model.trunk.frozen_modules)
    rows = padded_classes(classes, mesh)
    scale, margin = config.arcface.scale, config.arcface.margin
    classifiers = make_classifiers(model, classes, rows, scale=scale, margin=margin)
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


def initial_state(config: Config, programs: CompiledSteps) -> TrainState:
    """Makes the state of step 0, with the weights that `config.init` names."""
    state, abstract = programs.new_state(), programs.abstract
    drawn, shapes = (
        {"params": of.params["model"], "batch_stats": of.batch_stats}
        for of in (state, abstract)
    )
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
