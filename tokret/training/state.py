"""The training state and how it is born: on its devices, from one seed."""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tokret.models.arcface import ArcFace
from tokret.models.heads import delg
from tokret.models.layers import Intermediates
from tokret.models.retrieval_net import RetrievalNet
from tokret.shapes import Array, Float
from tokret.training.optimiser import Optimiser
from tokret.training.sharding import state_shardings

# By their names among the parameters; both begin alike for sharding and evaluation.
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
    """Makes the classifiers that train a model.

    Args:
      model: the descriptor model; a local branch of it has a classifier of its own.
      classes: number of classes.
      rows: of a class matrix, at least `classes`.
      scale: factor of the descriptors' cosines.
      margin: angle in radians added at the descriptors' labels.
    """
    made = {GLOBAL: ArcFace(classes, rows, scale, margin)}
    if model.local is not None:
        made[LOCAL] = ArcFace(classes, rows, delg.SCALE, delg.MARGIN)
    return made


def classified(
    descriptors: Float[Array, "b d"], taps: Intermediates
) -> dict[str, Float[Array, "b k"]]:
    """Returns what each classifier sees of a model's outputs, by its name."""
    seen = {GLOBAL: descriptors}
    return seen | ({LOCAL: taps["pooled_local"]} if "pooled_local" in taps else {})


def init_state(
    key: jax.Array,
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    has_ema: bool = False,
) -> TrainState:
    """Draws initial weights, as released.

    Args:
      key: random key; the same key draws the same weights on any mesh.
      model: the descriptor model.
      classifiers: the ArcFace layers.
      optimiser: whose state is made for them.
      has_ema: whether an EMA of the weights is kept.
    """
    model_key, classifier_key = jax.random.split(key)
    # Fully convolutional up to the head: parameters do not depend on the image's size.
    images = jnp.zeros((1, 64, 64, 3), jnp.float32)
    outputs, variables = model.init_with_output(model_key, images, train=False)
    params = {"model": variables["params"]}
    labels = jnp.zeros((1,), jnp.int32)
    for i, (name, seen) in enumerate(classified(*outputs).items()):
        # The first has the key itself: so did runs that had no other.
        own_key = jax.random.fold_in(classifier_key, i) if i else classifier_key
        params[name] = classifiers[name].init(own_key, seen, labels)["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimiser.init(params),
        # A copy: the step gives the state's memory away, no two leaves may share it.
        ema_params=jax.tree.map(jnp.copy, params["model"]) if has_ema else {},
        # Three arrays: a donated buffer must not be given twice.
        nonfinite_steps=jnp.zeros((), jnp.int32),
        consecutive_nonfinite_steps=jnp.zeros((), jnp.int32),
        last_nonfinite_step=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    seed: int,
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    mesh: Mesh,
    has_ema: bool = False,
    shard_optimiser: bool = False,
) -> Any:
    """Returns the state's shapes, dtypes and shardings, as checkpoints want them."""
    shapes = jax.eval_shape(
        lambda: init_state(jax.random.key(seed), model, classifiers, optimiser, has_ema)
    )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        state_shardings(shapes, mesh, shard_optimiser=shard_optimiser),
    )


def new_state(
    seed: int,
    model: RetrievalNet,
    classifiers: Classifiers,
    optimiser: Optimiser,
    abstract: Any,
) -> TrainState:
    """Makes the initial state, every array on its devices from the start.

    Args:
      seed: decides the weights.
      model: the descriptor model.
      classifiers: the ArcFace layers.
      optimiser: whose state is made for them.
      abstract: what `abstract_state` returned for these.
    """
    key = functools.partial(jax.random.key, seed)
    has_ema = bool(abstract.ema_params)
    make = jax.jit(
        lambda: init_state(key(), model, classifiers, optimiser, has_ema),
        out_shardings=shardings_of(abstract),
    )
    return make()


def shardings_of(abstract: Any) -> Any:
    """Returns the shardings of a tree of shapes that has them."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
