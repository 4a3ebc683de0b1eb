import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.arcface import (
    ArcFace,
    add_margin,
    arcface_logits,
    cross_entropy,
    label_rank,
)


def test_loss_of_random_directions_at_full_size():
    classes, dim = 81_313, 1_024
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((64, dim), np.float32)
    weight = rng.standard_normal((classes, dim), np.float32)
    labels = rng.integers(0, classes, 64).astype(np.int32)
    logits = arcface_logits(
        jnp.asarray(embeddings),
        jnp.asarray(weight),
        jnp.asarray(labels),
        scale=32.0,
        margin=0.2,
    )
    loss = float(cross_entropy(logits, jnp.asarray(labels)).mean())
    # ln(classes) of a uniform guess, the margin at a right angle, half the logits'
    # variance: 18.16.
    assert loss == pytest.approx(math.log(classes) + 32 * math.sin(0.2) + 0.5, abs=0.1)


def test_margin_is_an_angle_up_to_pi_minus_itself():
    margin = 0.2
    angles = np.array([0.1, 1.0, math.pi - 0.21, math.pi - 0.19, 3.1])
    moved = np.where(angles <= math.pi - margin, angles + margin, angles)
    found = add_margin(jnp.cos(angles), margin)
    np.testing.assert_allclose(found, np.cos(moved), atol=2e-6)


def test_padding_classes_changes_nothing():
    rng = np.random.default_rng(1)
    embeddings = jnp.asarray(rng.standard_normal((6, 8), np.float32))
    labels = jnp.arange(6) % 5

    def losses(padded):
        layer = ArcFace(5, padded, 16.0, 0.2)
        variables = layer.init(jax.random.key(0), embeddings, labels)

        def loss(v):
            return cross_entropy(layer.apply(v, embeddings, labels), labels).sum()

        value, grads = jax.value_and_grad(loss)(variables)
        logits = layer.apply(variables, embeddings, labels)
        return value, grads["params"]["weight"], label_rank(logits, labels)

    plain, padded = losses(5), losses(8)
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(padded[1][:5], plain[1], rtol=1e-5, atol=1e-6)
    assert not padded[1][5:].any()
    np.testing.assert_array_equal(padded[2], plain[2])


def test_rank_counts_the_classes_above_the_label():
    logits = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    assert label_rank(logits, jnp.array([2, 1])).tolist() == [1, 0]


def test_gradients_are_finite_where_arccos_has_none():
    weight = jnp.eye(4)
    embeddings = jnp.stack([weight[0], -weight[1], jnp.zeros(4)])
    labels = jnp.array([0, 1, 2])

    def loss(e, w):
        logits = arcface_logits(e, w, labels, scale=32.0, margin=0.2)
        return cross_entropy(logits, labels).mean()

    for grad in jax.grad(loss, argnums=(0, 1))(embeddings, weight):
        assert np.isfinite(grad).all()
