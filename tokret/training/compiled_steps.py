"""A run's compiled programs, made from its modules."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from tokret.models.retrieval_net import RetrievalNet
from tokret.training.optimiser import Optimiser
from tokret.training.state import (
    Classifiers,
    TrainState,
    abstract_state,
    new_state,
)
from tokret.training.step import jit_step, train_step, validation_step
from tokret.training.updates import Updating


class Programs(NamedTuple):
    """What a run calls.

    Attributes:
      abstract: shapes, dtypes and shardings of the state.
      new_state: makes the initial state on its devices.
      train: (state, images, labels) -> (state, metrics); the old state's memory is
        used again.
      validate: (state, images, labels, weights) -> sums.
    """

    abstract: Any
    new_state: Callable[[], TrainState]
    train: Callable[..., Any]
    validate: Callable[..., Any]


def make_programs(
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    mesh: Mesh,
    seed: int,
    updating: Updating,
    shard_optimiser: bool = False,
) -> Programs:
    """Jits initialisation, training and validation over a mesh.

    Args:
      model: the descriptor model.
      classifiers: the ArcFace layers.
      optimiser: turns gradients into updates.
      mesh: the mesh that arrays are split over.
      seed: decides initial weights and dropout.
      updating: how gradients become an update.
      shard_optimiser: whether the optimiser's state is split over all devices.
    """
    has_ema = updating.ema_decay > 0
    drawn = (seed, model, classifiers, optimiser)
    abstract = abstract_state(*drawn, mesh, has_ema, shard_optimiser)
    modules: dict[str, Any] = {"model": model, "classifiers": classifiers, "mesh": mesh}
    train = functools.partial(
        train_step, **modules, optimiser=optimiser, seed=seed, updating=updating
    )
    validation = functools.partial(validation_step, **modules)
    return Programs(
        abstract,
        functools.partial(new_state, *drawn, abstract),
        jit_step(train, abstract, mesh, trains=True),
        jit_step(validation, abstract, mesh, trains=False),
    )
