"""One step of training, one of validation: pure functions, and jitted over a mesh."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from tokret.models.arcface import ArcFace, cross_entropy, label_rank
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.compiler_options import training_options
from tokret.shapes import Array, Float, Int, UInt8
from tokret.training.optimiser import Optimiser
from tokret.training.sharding import BATCH, DESCRIPTORS, REPLICATED
from tokret.training.state import (
    GLOBAL,
    LOCAL,
    Classifiers,
    TrainState,
    abstract_state,
    classifier_inputs,
    init_state,
    shardings_of,
)
from tokret.training.updates import (
    Metrics,
    accumulate_gradients,
    apply_update,
    norm,
)


def losses_and_ranks(
    classifier: ArcFace,
    mesh: Mesh,
    params: Any,
    descriptors: Float[Array, "b d"],
    labels: Int[Array, " b"],
) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
    """Returns each example's loss in nats and the rank of its label."""
    rows = NamedSharding(mesh, DESCRIPTORS)
    descriptors = jax.lax.with_sharding_constraint(descriptors, rows)
    labels = jax.lax.with_sharding_constraint(labels, rows)
    logits = classifier.apply({"params": params}, descriptors, labels)
    assert isinstance(logits, jax.Array)
    return cross_entropy(logits, labels), label_rank(logits, labels)


def batch_metrics(found: dict[str, tuple[Array, Array]]) -> Metrics:
    """Returns means over a training batch of each classifier's losses and ranks."""
    means = {name: jnp.mean(losses) for name, (losses, _) in found.items()}
    ranks = found[GLOBAL][1]
    metrics = {
        "loss": sum(means.values(), start=jnp.zeros(())),
        "top1": jnp.mean(ranks < 1),
        "top5": jnp.mean(ranks < 5),
    }
    return metrics | ({"local_loss": means[LOCAL]} if LOCAL in means else {})


def train_step(
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    *,
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    mesh: Mesh,
    seed: int,
    grad_accum_steps: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Updates the state by one batch of RGB images, not yet normalised.

    The seed, with the step, decides dropout. Of the `grad_accum_steps` micro-batches,
    computed one after the other to save memory, the gradient is that of the whole
    batch, except that batch norms take statistics of each. An `ema_decay` of 0 keeps
    no exponential moving average (EMA) of the weights.

    Returns:
      The state after, and metrics of the batch: loss, the mean in nats, summed over
      the classifiers; local_loss, that of the local classifier if there is one; top1
      and top5 of the global classifier, as fractions; the norms of the gradient and of
      all weights after the update; and the counts of skipped updates.
    """
    step_key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss(
        params: Any, batch_stats: Any, batch: tuple[Array, Array], index: Any
    ) -> tuple[Array, tuple[Any, Metrics]]:
        pixels, classes = batch
        dropout = step_key
        if grad_accum_steps > 1:
            dropout = jax.random.fold_in(step_key, index)
        outputs, after = model.apply(
            {"params": params["model"], "batch_stats": batch_stats},
            normalise(pixels, model.pixels),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        found = {
            name: losses_and_ranks(
                classifiers[name], mesh, params[name], inputs, classes
            )
            for name, inputs in classifier_inputs(*outputs).items()
        }
        metrics = batch_metrics(found)
        return metrics["loss"], (after["batch_stats"], metrics)

    grads, batch_stats, metrics = accumulate_gradients(
        loss, state, (images, labels), grad_accum_steps
    )
    gradient_norm = norm(grads)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(gradient_norm)
    after = apply_update(state, grads, batch_stats, finite, optimiser, ema_decay)
    return after, {
        **metrics,
        "gradient_norm": gradient_norm,
        # After the update: of the weights that are saved.
        "weight_norm": norm(after.params),
        "nonfinite_steps": after.nonfinite_steps,
        "consecutive_nonfinite_steps": after.consecutive_nonfinite_steps,
        "last_nonfinite_step": after.last_nonfinite_step,
    }


def validation_step(
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    *,
    model: RetrievalNet,
    classifiers: Classifiers,
    mesh: Mesh,
) -> Metrics:
    """Sums loss, top1, top5 and count over a batch; the loss has ArcFace's margin.

    All are the global classifier's: a local branch is for training. `weights` are 1 for
    an image, 0 for padding of the batch; for the others see `train_step`.
    """
    variables = {"params": state.params["model"], "batch_stats": state.batch_stats}
    result = model.apply(variables, normalise(images, model.pixels), train=False)
    losses, ranks = losses_and_ranks(
        classifiers[GLOBAL], mesh, state.params[GLOBAL], result[0], labels
    )
    sums = {"loss": losses, "top1": ranks < 1, "top5": ranks < 5}
    return {name: jnp.sum(weights * value) for name, value in sums.items()} | {
        "count": jnp.sum(weights)
    }


class CompiledSteps(NamedTuple):
    """The jitted functions of a run.

    Attributes:
      abstract: shapes, dtypes and shardings of the state.
      new_state: makes the initial state on its devices.
      train: (state, images, labels) -> (state, metrics); donates the old state.
      validate: (state, images, labels, weights) -> sums.
    """

    abstract: Any
    new_state: Callable[[], TrainState]
    train: Callable[..., Any]
    validate: Callable[..., Any]


def compile_steps(
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    mesh: Mesh,
    seed: int,
    *,
    grad_accum_steps: int = 1,
    ema_decay: float = 0.0,
    shard_optimiser: bool = False,
) -> CompiledSteps:
    """Jits initialisation, training and validation over a mesh.

    On a CPU or GPU a training step has compiler options of its own: no other jitted
    function can call it. The arguments are those of `train_step` (the seed decides the
    initial weights, too) and of `state_shardings`.
    """
    modules: dict[str, Any] = {"model": model, "classifiers": classifiers}

    def initial() -> TrainState:
        key, ema = jax.random.key(seed), ema_decay > 0
        return init_state(key, **modules, optimiser=optimiser, ema=ema)

    abstract = abstract_state(initial, mesh, shard_optimiser=shard_optimiser)
    state = shardings_of(abstract)
    metrics, rows = NamedSharding(mesh, REPLICATED), NamedSharding(mesh, BATCH)
    options: dict[str, Any] = {
        **{"optimiser": optimiser, "seed": seed},
        **{"grad_accum_steps": grad_accum_steps, "ema_decay": ema_decay},
    }
    return CompiledSteps(
        abstract,
        new_state=jax.jit(initial, out_shardings=state),
        train=jax.jit(
            functools.partial(train_step, **modules, mesh=mesh, **options),
            in_shardings=(state, rows, rows),
            out_shardings=(state, metrics),
            donate_argnums=(0,),
            compiler_options=training_options(mesh.devices.flat[0].platform),
        ),
        validate=jax.jit(
            functools.partial(validation_step, **modules, mesh=mesh),
            in_shardings=(state, rows, rows, rows),
            out_shardings=metrics,
        ),
    )
