"""From gradients to the next state: their norm, accumulation, EMA, finite steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tokret.shapes import Array, Bool, Float
from tokret.training.optimiser import Optimiser
from tokret.training.state import TrainState

Metrics = dict[str, Array]
LARGE = 2**22  # values of an array that `norm_of_rows` sums by itself


def split_batch(batch: Any, count: int) -> Any:
    """Splits arrays [b, ...] into [count, b / count, ...] within each device."""

    def split(array: Array) -> Array:
        rows = array.reshape(-1, count, *array.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(split, batch)


def accumulate_gradients(
    loss: Callable[..., Any], state: TrainState, batch: Any, count: int
) -> tuple[Any, Any, Metrics]:
    """Averages gradients and metrics over the `count` micro-batches of a batch.

    `loss` is (params, batch_stats, micro-batch, its index) -> (loss, (batch_stats,
    metrics)). Returns gradients, statistics after the last micro-batch, and metrics.
    """
    gradient = jax.grad(loss, has_aux=True)
    if count == 1:
        grads, aux = gradient(state.params, state.batch_stats, batch, 0)
        return grads, *aux

    def body(carry: tuple[Any, Any], scanned: Any) -> tuple[tuple[Any, Any], Metrics]:
        (batch_stats, total), (index, micro_batch) = carry, scanned
        grads, (batch_stats, metrics) = gradient(
            state.params, batch_stats, micro_batch, index
        )
        return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

    start = (state.batch_stats, jax.tree.map(jnp.zeros_like, state.params))
    scanned = (jnp.arange(count), split_batch(batch, count))
    (batch_stats, total), metrics = jax.lax.scan(body, start, scanned)
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    return mean, batch_stats, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), metrics)


def apply_update(
    state: TrainState,
    grads: Any,
    batch_stats: Any,
    finite: Bool[Array, ""],
    optimiser: Optimiser,
    ema_decay: float,
) -> TrainState:
    """Returns the state after a step; a non-finite step changes only counters."""
    updates, opt_state = optimiser.update(
        grads, state.opt_state, state.params, finite=finite
    )
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_decay:
        ema_params = optax.incremental_update(
            params["model"], ema_params, 1 - ema_decay
        )
    new = (params, batch_stats, ema_params)
    old = (state.params, state.batch_stats, state.ema_params)
    params, batch_stats, ema_params = jax.tree.map(
        functools.partial(jnp.where, finite), new, old
    )
    skipped = 1 - finite.astype(jnp.int32)
    return TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=ema_params,
        nonfinite_steps=state.nonfinite_steps + skipped,
        consecutive_nonfinite_steps=(state.consecutive_nonfinite_steps + skipped)
        * skipped,
        last_nonfinite_step=jnp.where(
            finite, state.last_nonfinite_step, state.step + 1
        ),
    )


def norm(tree: Any) -> Float[Array, ""]:
    """Returns the Euclidean norm of all numbers of a tree, in few kernels on a GPU.

    Summing each array of a ResNet-101 by itself takes 464 kernels of a GPU's step, most
    of which take longer to launch than to run (docs/performance.md).
    """
    leaves = [jnp.zeros((), jnp.float32), *jax.tree.leaves(tree)]
    dtype = jnp.result_type(*leaves)  # of both branches
    return jax.lax.platform_dependent(
        tree,
        cuda=lambda tree: norm_of_rows(tree).astype(dtype),
        default=lambda tree: optax.tree.norm(tree).astype(dtype),
    )


def norm_of_rows(tree: Any) -> Float[Array, ""]:
    """Returns the same from sums of rows, and one sum of these."""
    squares = [jnp.square(leaf) for leaf in jax.tree.leaves(tree)]
    large = [jnp.sum(leaf) for leaf in squares if leaf.size >= LARGE]
    rows = [
        (jnp.sum(leaf, -1) if leaf.ndim > 1 else leaf).reshape(-1)
        for leaf in squares
        if leaf.size < LARGE
    ]
    # XLA would otherwise sum the concatenated parts one by one.
    joined = jax.lax.optimization_barrier(
        jnp.concatenate([jnp.zeros(0, jnp.float32), *rows])
    )
    return jnp.sqrt(sum(large, start=jnp.sum(joined)))
