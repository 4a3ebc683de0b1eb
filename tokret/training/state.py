"""The training state and how it is born: on its devices, from one seed."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from tokret.models.arcface import ArcFace
from tokret.models.retrieval_net import RetrievalNet
from tokret.training.sharding import state_shardings


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes.

    Attributes:
      step: steps done so far, int32 [].
      params: parameters of the model, {"model": ..., "arcface": ...}, float32.
      batch_stats: running statistics of the model's batch norms, float32.
      opt_state: the optimiser's momentum and step.
    """

    step: Any  # trees of shapes and shardings have this form too
    params: Any
    batch_stats: Any
    opt_state: Any


def init_state(
    key: jax.Array,
    model: RetrievalNet,
    classifier: ArcFace,
    optimiser: optax.GradientTransformation,
) -> TrainState:
    """Draws initial weights, as released.

    Args:
      key: random key; the same key draws the same weights on any mesh.
      model: the descriptor model.
      classifier: the ArcFace layer.
      optimiser: whose state is made for them.
    """
    model_key, classifier_key = jax.random.split(key)
    # Fully convolutional up to the head: parameters do not depend on the image's size.
    images = jnp.zeros((1, 64, 64, 3), jnp.float32)
    variables = model.init(model_key, images, train=False)
    (descriptor, _), _ = jax.eval_shape(
        lambda v: model.apply(v, images, train=False, mutable=["batch_stats"]),
        variables,
    )
    zeros = jnp.zeros(descriptor.shape, descriptor.dtype)
    labels = jnp.zeros((1,), jnp.int32)
    classes = classifier.init(classifier_key, zeros, labels)
    params = {"model": variables["params"], "arcface": classes["params"]}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimiser.init(params),
    )


def abstract_state(
    seed: int,
    model: RetrievalNet,
    classifier: ArcFace,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
) -> Any:
    """Returns the state's shapes, dtypes and shardings, as checkpoints want them."""
    shapes = jax.eval_shape(
        lambda: init_state(jax.random.key(seed), model, classifier, optimiser)
    )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        state_shardings(shapes, mesh),
    )


def new_state(
    seed: int,
    model: RetrievalNet,
    classifier: ArcFace,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """Makes the initial state, every array on its devices from the start."""
    abstract = abstract_state(seed, model, classifier, optimiser, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    make = jax.jit(
        lambda: init_state(jax.random.key(seed), model, classifier, optimiser),
        out_shardings=shardings,
    )
    return make()
