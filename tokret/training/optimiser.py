"""The released recipe: SGD, Nesterov momentum, warm-up, cosine or linear decay.

The updates of all optimisers here take one more argument, `finite`: where it is False,
the state does not change, and the returned updates must not be used.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from tokret.arguments import choose
from tokret.errors import UserError
from tokret.shapes import Array, Bool

Rate = Callable[[jax.Array | int], Array]
Optimiser: TypeAlias = optax.GradientTransformationExtraArgs
Finite = Bool[Array, ""] | bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of every step; other fields are those of `config.schedule`.

    Attributes:
      reference_batch_size: rates are scaled by this / 256. The released script uses
        the batch of ONE GPU here.
      warmup_steps: steps of linear warm-up; the last of them has the full rate.
      steps: all steps, warm-up included; at the end of them the rate would be 0.
      restart_steps: steps after which warm-up and decay start again, as in SGDR
        (Loshchilov and Hutter, arXiv 1608.03983); the optimiser keeps its state.
      decay: "cosine" as in the released code, or "linear" as in its README.
    """

    base_lr: float
    reference_batch_size: int
    warmup_init_lr: float
    warmup_steps: int
    steps: int
    decay: str
    restart_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        choose({"cosine": None, "linear": None}, self.decay, "decay")
        bounds = (0, *self.restart_steps, self.steps)
        shortest = min(end - start for start, end in itertools.pairwise(bounds))
        if not 0 <= self.warmup_steps < shortest:
            raise UserError(
                f"warmup_steps is {self.warmup_steps}; it must be less than all steps, "
                f"{shortest}: lower warmup_epochs or raise epochs"
            )

    def __call__(self, step: jax.Array | int) -> Array:
        """Returns the learning rate of `step`, counted from 0."""
        step = jnp.asarray(step)
        ends = (*self.restart_steps, self.steps)
        rate = self._rate(step, ends[0])
        for start, end in itertools.pairwise(ends):
            rate = jnp.where(step >= start, self._rate(step - start, end - start), rate)
        return rate

    def _rate(self, step: Array, steps: int) -> Array:
        """Returns the rate of a cycle of so many steps, by constants as XLA folds them.

        So the rates before a restart are, to the bit, those of a run without it.
        """
        rising = step / max(self.warmup_steps - 1, 1)
        warmup = self.warmup_init_lr + (self.base_lr - self.warmup_init_lr) * rising
        done = (step - self.warmup_steps) / (steps - self.warmup_steps)
        left = 1 - done if self.decay == "linear" else (1 + jnp.cos(jnp.pi * done)) / 2
        rate = jnp.where(step < self.warmup_steps, warmup, self.base_lr * left)
        return jnp.asarray(rate * (self.reference_batch_size / 256))


def decays(params: Any) -> Any:
    """Marks the parameters under weight decay: not those with one axis, nor biases."""

    def decayed(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and path[-1].key != "bias"

    return jax.tree_util.tree_map_with_path(decayed, params)


def guarded(inner: optax.GradientTransformation) -> Optimiser:
    """Keeps the state of a transformation where an update is not finite."""

    def update(
        updates: Any, state: Any, params: Any = None, *, finite: Finite = True
    ) -> tuple[Any, Any]:
        updates, after = inner.update(updates, state, params)
        chosen = functools.partial(jnp.where, finite)
        return updates, jax.tree.map(chosen, after, state)

    return Optimiser(inner.init, update)


def decayed_momentum(*, momentum: float, weight_decay: float) -> Optimiser:
    """Makes Nesterov's momentum of gradients that weight decay has joined.

    optax.add_decayed_weights and optax.trace compute the same. But there momentum and
    weights both read the old momentum, which a CPU has to copy for one of them; here
    momentum is written first, and the weights read that (docs/performance.md).
    """

    def decayed(grads: Any, params: Any) -> Any:
        def add(marked: bool, grad: Array, param: Array) -> Array:
            return grad + weight_decay * param if marked else grad

        return jax.tree.map(add, decays(params), grads, params)

    def init(params: Any) -> optax.TraceState:
        return optax.TraceState(optax.tree.zeros_like(params))

    def update(
        grads: Any, state: Any, params: Any = None, *, finite: Finite = True
    ) -> tuple[Any, optax.TraceState]:
        def follow(grad: Array, old: Array) -> Array:
            return jnp.where(finite, grad + momentum * old, old)

        trace = jax.tree.map(follow, decayed(grads, params), state.trace)
        # XLA would otherwise compute the momentum again for the weights.
        trace, grads, params = jax.lax.platform_dependent(
            (trace, grads, params),
            cpu=jax.lax.optimization_barrier,
            default=lambda arrays: arrays,
        )
        updates = jax.tree.map(
            lambda grad, new: grad + momentum * new, decayed(grads, params), trace
        )
        return updates, optax.TraceState(trace)

    return Optimiser(init, update)


def sgd(schedule: Rate, *, momentum: float, weight_decay: float) -> Optimiser:
    """Makes SGD as PyTorch computes it: decay joins the gradient before momentum."""
    return optax.chain(
        decayed_momentum(momentum=momentum, weight_decay=weight_decay),
        guarded(optax.scale_by_learning_rate(schedule)),
    )


def adamw(schedule: Rate, *, weight_decay: float) -> Optimiser:
    """Makes AdamW, for training from scratch; decay is times the learning rate."""
    return guarded(optax.adamw(schedule, weight_decay=weight_decay, mask=decays))


OPTIMISERS: dict[str, Callable[..., Optimiser]] = {"sgd": sgd, "adamw": adamw}


def in_trunk(params: Any) -> Any:
    """Marks the trunk's parameters."""

    def marked(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        return [key.key for key in path[:2]] == ["model", "trunk"]

    return jax.tree_util.tree_map_with_path(marked, params)


def scale_trunk(factor: Rate) -> Optimiser:
    """Multiplies the trunk's updates by a factor of the step."""
    return guarded(optax.masked(optax.scale_by_schedule(factor), in_trunk))


def freeze_modules(optimiser: Optimiser, modules: Collection[str]) -> Optimiser:
    """Freezes named modules of the trunk, which have no decay and no momentum then."""

    def labels(params: Any) -> Any:
        def label(path: tuple[Any, ...], leaf: jax.Array) -> str:
            names = [key.key for key in path[:3]]
            frozen = names[:2] == ["model", "trunk"] and names[2] in modules
            return "frozen" if frozen else "trained"

        return jax.tree_util.tree_map_with_path(label, params)

    kinds = {"trained": optimiser, "frozen": optax.set_to_zero()}
    return optax.partition(kinds, labels)


def make_optimiser(
    schedule: Rate,
    *,
    name: str,
    max_grad_norm: float = 0.0,
    trunk_lr_multiplier: float = 1.0,
    frozen_steps: int = 0,
    **options: Any,
) -> Optimiser:
    """Makes an optimiser from the fields of `config.optimiser`.

    In the first `frozen_steps` the trunk's weights are frozen; the running statistics
    of its batch norms are still updated. A `max_grad_norm` of 0 clips nothing.

    Raises:
      UserError: if the name is unknown.
    """
    make = choose(OPTIMISERS, name, "name")
    optimiser = make(schedule, **options)
    if max_grad_norm:
        optimiser = optax.chain(optax.clip_by_global_norm(max_grad_norm), optimiser)
    if not frozen_steps and trunk_lr_multiplier == 1:
        return optimiser

    def thawed(step: jax.Array | int) -> Array:
        return jnp.where(jnp.asarray(step) < frozen_steps, 0.0, 1.0)

    # Gradients too, so that no momentum builds up while the trunk is frozen.
    return optax.chain(
        scale_trunk(thawed),
        optimiser,
        scale_trunk(lambda step: trunk_lr_multiplier * thawed(step)),
    )
