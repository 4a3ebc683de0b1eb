"""The training state, and how it is initialised from a seed."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tokret.models.arcface import ArcFace
from tokret.models.heads import Intermediates, delg
from tokret.models.retrieval_net import RetrievalNet
from tokret.shapes import Array, Float
from tokret.training.optimiser import Optimiser
from tokret.training.sharding import state_shardings

# By their names among the parameters; sharding and evaluation rely on the prefix.
Classifiers = Mapping[str, ArcFace]
GLOBAL, LOCAL = "arcface", "arcface_local"


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes.

    Attributes:
      step: steps done so far, int32 [].
      params: parameters of the model under "model", and of each classifier under its
        name, float32.
      batch_stats: running statistics of the model's batch norms, float32.
      opt_state: the optimiser's momentum and step.
      ema_params: exponential moving average of the model's parameters; {} without.
      nonfinite_steps: steps skipped so far for a non-finite loss or gradient, int32 [].
      consecutive_nonfinite_steps: those since the last finite step, int32 [].
      last_nonfinite_step: the last of them, counted from 1; 0 for none.
    """

    step: Any  # trees of shapes and shardings have this form too
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    nonfinite_steps: Any
    consecutive_nonfinite_steps: Any
    last_nonfinite_step: Any


def make_classifiers(
    model: RetrievalNet, classes: int, rows: int, *, scale: float, margin: float
) -> dict[str, ArcFace]:
    """Makes the classifiers that train a model, one for its local branch, if any.

    `rows` are those of a class matrix, at least `classes`; scale and margin are of the
    descriptors' classifier, see `ArcFace`.
    """
    made = {GLOBAL: ArcFace(classes, rows, scale, margin)}
    if model.local is not None:
        made[LOCAL] = ArcFace(classes, rows, delg.SCALE, delg.MARGIN)
    return made


def classifier_inputs(
    descriptors: Float[Array, "b d"], intermediates: Intermediates
) -> dict[str, Float[Array, "b k"]]:
    """Returns the input of each classifier, by name, from a model's outputs."""
    inputs = {GLOBAL: descriptors}
    if "pooled_local" in intermediates:
        inputs[LOCAL] = intermediates["pooled_local"]
    return inputs


def init_state(
    key: jax.Array,
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    ema: bool = False,
) -> TrainState:
    """Draws initial weights, as released: the same key draws the same on any mesh.

    With `ema` an EMA of the weights is kept.
    """
    model_key, classifier_key = jax.random.split(key)
    # Fully convolutional up to the head: parameters do not depend on the image's size.
    images = jnp.zeros((1, 64, 64, 3), jnp.float32)
    outputs, variables = model.init_with_output(model_key, images, train=False)
    params = {"model": variables["params"]}
    labels = jnp.zeros((1,), jnp.int32)
    for i, (name, inputs) in enumerate(classifier_inputs(*outputs).items()):
        # The first has the key itself, as in a run without a second.
        own_key = jax.random.fold_in(classifier_key, i) if i else classifier_key
        params[name] = classifiers[name].init(own_key, inputs, labels)["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimiser.init(params),
        # Copies, and three arrays below: a donated buffer must not be given twice.
        ema_params=jax.tree.map(jnp.copy, params["model"]) if ema else {},
        nonfinite_steps=jnp.zeros((), jnp.int32),
        consecutive_nonfinite_steps=jnp.zeros((), jnp.int32),
        last_nonfinite_step=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    initial: Callable[[], TrainState], mesh: Mesh, *, shard_optimiser: bool = False
) -> Any:
    """Returns shapes, dtypes and shardings of the state that `initial` would make."""
    shapes = jax.eval_shape(initial)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        state_shardings(shapes, mesh, shard_optimiser=shard_optimiser),
    )


def shardings_of(abstract: Any) -> Any:
    """Returns the shardings of a tree of shapes that has them."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
