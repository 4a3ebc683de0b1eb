"""ArcFace logits (Deng et al., CVPR 2019, section 2.1) and their cross entropy.

For a class matrix that is split over devices: margin, loss and accuracy use a row of
logits only in sums over classes, so no device ever needs all of them. Classes are
padded to a multiple of the mesh; padding is masked.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import l2_normalise
from tokret.shapes import Array, Bool, Float, Int

CLIP = 1e-6  # the released code keeps cosines this far from -1 and 1


def one_hot(labels: Int[Array, " b"], classes: int) -> Bool[Array, "b k"]:
    """Marks each row's label."""
    return jnp.arange(classes) == labels[:, None]


def add_margin(cosine: Float[Array, " b"], margin: float) -> Float[Array, " b"]:
    """Returns cos(t + margin) from cos t, without arccos, whose gradient explodes.

    Past pi - margin, where cos(t + margin) would rise again, no margin is added.
    """
    sine = jnp.sqrt(1.0 - jnp.square(cosine))
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    return jnp.where(cosine >= -math.cos(margin), shifted, cosine)


def arcface_logits(
    embeddings: Float[Array, "b d"],
    weight: Float[Array, "k d"],
    labels: Int[Array, " b"],
    *,
    scale: float,
    margin: float,
) -> Float[Array, "b k"]:
    """Scales cosines between embeddings and rows of `weight`, vectors of any length.

    `margin`, an angle in radians, is added at the labels.
    """
    cosine = jnp.matmul(
        l2_normalise(embeddings),
        l2_normalise(weight).T,
        precision=jax.lax.Precision.HIGHEST,
    )
    cosine = jnp.clip(cosine, -1.0 + CLIP, 1.0 - CLIP)
    at_label = one_hot(labels, weight.shape[0])
    label_cosine = jnp.sum(jnp.where(at_label, cosine, 0.0), axis=-1)
    with_margin = add_margin(label_cosine, margin)
    return scale * jnp.where(at_label, with_margin[:, None], cosine)


def cross_entropy(
    logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """Cross entropy of each row in nats, by sums over classes alone."""
    peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    total = jnp.sum(jnp.exp(logits - peak[:, None]), axis=-1)
    at_label = one_hot(labels, logits.shape[-1])
    label_logit = jnp.sum(jnp.where(at_label, logits, 0.0), axis=-1)
    return jnp.log(total) + peak - label_logit


def label_rank(
    logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Int[Array, " b"]:
    """Counts the classes with a higher score than the label: 0 is top-1 correct."""
    at_label = one_hot(labels, logits.shape[-1])
    label_logit = jnp.sum(jnp.where(at_label, logits, 0.0), axis=-1, keepdims=True)
    return jnp.sum(logits > label_logit, axis=-1)


class ArcFace(nn.Module):
    """The class matrix and its logits.

    Attributes:
      classes: number of classes.
      padded_classes: rows of the matrix, at least `classes`.
      scale: factor of the cosines (released: sqrt(1024) = 32).
      margin: angle in radians (released: 0.2).
    """

    classes: int
    padded_classes: int
    scale: float
    margin: float

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "b d"], labels: Int[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Returns [b, padded_classes] logits; those of the padding are very small."""
        weight = self.param("weight", self._initialise, embeddings.shape[-1])
        logits = arcface_logits(
            embeddings, weight, labels, scale=self.scale, margin=self.margin
        )
        mask = jnp.arange(self.padded_classes) < self.classes
        return jnp.where(mask, logits, jnp.finfo(logits.dtype).min / 2)

    def _initialise(self, key: jax.Array, dim: int) -> Float[Array, "k d"]:
        """Xavier uniform for the true number of classes: the same with any padding."""
        bound = math.sqrt(6 / (self.classes + dim))
        shape = (self.classes, dim)
        weight = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        return jnp.pad(weight, ((0, self.padded_classes - self.classes), (0, 0)))
