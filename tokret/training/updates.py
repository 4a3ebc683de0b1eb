"""From gradients to the next state: gradient accumulation, EMA, non-finite steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tokret.arguments import within
from tokret.shapes import Array, Bool
from tokret.training.optimiser import Optimiser
from tokret.training.state import TrainState

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Updating:
    """How gradients become an update; `config.updates`.

    Attributes:
      grad_accum_steps: micro-batches that a batch is split into, computed one after
        the other to save memory. The gradient is that of the whole batch, except that
        batch norms take statistics of each micro-batch.
      ema_decay: decay of the exponential moving average of the weights, such as
        0.999; 0 keeps no EMA.
      max_nonfinite_steps: consecutive steps with a non-finite loss or gradient that
        are skipped before the run stops.
    """

    grad_accum_steps: int
    ema_decay: float
    max_nonfinite_steps: int

    def __post_init__(self) -> None:
        within("updates.grad_accum_steps", self.grad_accum_steps, 1)
        within("updates.ema_decay", self.ema_decay, 0, 0.999999)
        within("updates.max_nonfinite_steps", self.max_nonfinite_steps, 0)


def in_parts(batch: Any, parts: int) -> Any:
    """Splits arrays [b, ...] into [parts, b / parts, ...], each device its own."""

    def split(array: Array) -> Array:
        rows = array.reshape(-1, parts, *array.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(split, batch)


def whole_gradient(
    gradient: Callable[..., Any], state: TrainState, batch: Any, parts: int
) -> tuple[Any, Any, Metrics]:
    """Averages gradients and metrics over the parts of a batch.

    Args:
      gradient: (params, batch_stats, part, number of the part) -> (gradients,
        batch_stats, metrics).
      state: the state before.
      batch: arrays [b, ...].
      parts: number of parts; it divides b.

    Returns:
      Gradients, running statistics after the last part, metrics.
    """
    if parts == 1:
        result: tuple[Any, Any, Metrics] = gradient(
            state.params, state.batch_stats, batch, 0
        )
        return result

    def body(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], Metrics]:
        batch_stats, total = carry
        grads, batch_stats, metrics = gradient(
            state.params, batch_stats, part[1], part[0]
        )
        return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

    start = (state.batch_stats, jax.tree.map(jnp.zeros_like, state.params))
    scanned = (jnp.arange(parts), in_parts(batch, parts))
    (batch_stats, total), metrics = jax.lax.scan(body, start, scanned)
    mean = jax.tree.map(lambda leaf: leaf / parts, total)
    return mean, batch_stats, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), metrics)


def updated(
    state: TrainState,
    grads: Any,
    batch_stats: Any,
    healthy: Bool[Array, ""],
    optimiser: Optimiser,
    ema_decay: float,
) -> TrainState:
    """Makes the state after a step; an unhealthy one only counts."""
    updates, opt_state = optimiser.update(
        grads, state.opt_state, state.params, healthy=healthy
    )
    params = optax.apply_updates(state.params, updates)
    means = state.ema_params
    if ema_decay:
        means = optax.incremental_update(params["model"], means, 1 - ema_decay)
    new = (params, batch_stats, means)
    old = (state.params, state.batch_stats, state.ema_params)
    params, batch_stats, means = jax.tree.map(
        functools.partial(jnp.where, healthy), new, old
    )
    bad = 1 - healthy.astype(jnp.int32)
    return TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=means,
        nonfinite_steps=state.nonfinite_steps + bad,
        consecutive_nonfinite_steps=(state.consecutive_nonfinite_steps + bad) * bad,
        last_nonfinite_step=jnp.where(
            healthy, state.last_nonfinite_step, state.step + 1
        ),
    )
