"""One step of training, one of validation: pure functions, jitted over a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from tokret.models.arcface import ArcFace, cross_entropy, label_rank
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.compiler_options import training_options
from tokret.shapes import Array, Float, Int, UInt8
from tokret.training.global_norm import norm
from tokret.training.optimiser import Optimiser
from tokret.training.sharding import BATCH, DESCRIPTORS, REPLICATED
from tokret.training.state import (
    GLOBAL,
    LOCAL,
    Classifiers,
    TrainState,
    classified,
    shardings_of,
)
from tokret.training.updates import Metrics, Updating, updated, whole_gradient

Batch = dict[str, Array]


def classify(
    classifier: ArcFace,
    mesh: Mesh,
    weight: Any,
    descriptors: Float[Array, "b d"],
    labels: Int[Array, " b"],
) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
    """Returns each example's loss in nats and the rank of its label."""
    rows = NamedSharding(mesh, DESCRIPTORS)
    descriptors = jax.lax.with_sharding_constraint(descriptors, rows)
    labels = jax.lax.with_sharding_constraint(labels, rows)
    logits = classifier.apply({"params": weight}, descriptors, labels)
    assert isinstance(logits, jax.Array)
    return cross_entropy(logits, labels), label_rank(logits, labels)


def measures(found: dict[str, tuple[Array, Array]]) -> Metrics:
    """Sums up a training batch from each classifier's losses and ranks."""
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
    updating: Updating,
) -> tuple[TrainState, Metrics]:
    """Updates the state by one batch.

    Args:
      state: the state before.
      images: RGB, not yet normalised.
      labels: class of each image.
      model: the descriptor model.
      classifiers: the ArcFace layers.
      optimiser: turns gradients into updates.
      mesh: the mesh that the arrays are split over.
      seed: with the step, decides dropout.
      updating: how gradients become an update.

    Returns:
      The state after, and of the batch: the mean loss in nats, summed over classifiers
      if there are two, of which local_loss is then the local one's; top1 and top5, as
      fractions, by descriptors; the norms of the gradient and of all weights after the
      update; and the updates left out, in all and since the last one made.
    """
    step_key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_of(
        params: Any, batch_stats: Any, part: tuple[Array, Array], number: Any
    ) -> tuple[Array, tuple[Any, Metrics]]:
        pixels, classes = part
        dropout = step_key
        if updating.grad_accum_steps > 1:
            dropout = jax.random.fold_in(step_key, number)
        outputs, after = model.apply(
            {"params": params["model"], "batch_stats": batch_stats},
            normalise(pixels, model.pixels),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        found = {
            name: classify(classifiers[name], mesh, params[name], seen, classes)
            for name, seen in classified(*outputs).items()
        }
        metrics = measures(found)
        return metrics["loss"], (after["batch_stats"], metrics)

    def gradient(*arguments: Any) -> tuple[Any, Any, Metrics]:
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (_, (batch_stats, metrics)), grads = grad(*arguments)
        return grads, batch_stats, metrics

    grads, batch_stats, metrics = whole_gradient(
        gradient, state, (images, labels), updating.grad_accum_steps
    )
    gradient_norm = norm(grads)
    healthy = jnp.isfinite(metrics["loss"]) & jnp.isfinite(gradient_norm)
    after = updated(state, grads, batch_stats, healthy, optimiser, updating.ema_decay)
    return after, {
        **metrics,
        "gradient_norm": gradient_norm,
        # After the update: what is saved is what was looked at.
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
    """Sums loss and right guesses over a batch; the loss has the margin, as released.

    Both are those of the descriptors alone: a local branch is for training.

    Args:
      state: the state.
      images: RGB, not yet normalised.
      labels: class of each image.
      weights: 1 for an image, 0 for what only fills the batch.
      model: the descriptor model.
      classifiers: the ArcFace layers.
      mesh: the mesh that the arrays are split over.

    Returns:
      Sums of loss, top1, top5 and count over the batch.
    """
    variables = {"params": state.params["model"], "batch_stats": state.batch_stats}
    result = model.apply(variables, normalise(images, model.pixels), train=False)
    losses, ranks = classify(
        classifiers[GLOBAL], mesh, state.params[GLOBAL], result[0], labels
    )
    sums = {"loss": losses, "top1": ranks < 1, "top5": ranks < 5}
    return {name: jnp.sum(weights * value) for name, value in sums.items()} | {
        "count": jnp.sum(weights)
    }


def jit_step(
    step: Callable[..., Any], abstract_state: TrainState, mesh: Mesh, *, trains: bool
) -> Callable[..., Any]:
    """Jits a step over the mesh: state where it lives, the batch split over all.

    On a CPU or GPU a training step has options of its own: no other jit can call it.

    Args:
      step: (state, *batch) -> (state, metrics) if it trains, else metrics.
      abstract_state: shapes and shardings of the state.
      mesh: the mesh.
      trains: whether the state is replaced; its memory is then used again.
    """
    state = shardings_of(abstract_state)
    metrics = NamedSharding(mesh, REPLICATED)
    rows = NamedSharding(mesh, BATCH)
    platform = mesh.devices.flat[0].platform
    arrays = (rows,) * (2 if trains else 3)
    return jax.jit(
        step,
        in_shardings=(state, *arrays),
        out_shardings=(state, metrics) if trains else metrics,
        donate_argnums=(0,) if trains else (),
        compiler_options=training_options(platform) if trains else None,
    )
