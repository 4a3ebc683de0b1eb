import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.arcface import arcface_logits, cross_entropy


def test_logits_loss_and_both_gradients_equal_the_released_ones(golden):
    case = np.load(golden("arcface.npz"))
    embeddings, weight = jnp.asarray(case["embedding"]), jnp.asarray(case["weight"])
    labels = jnp.asarray(case["label"])

    def loss(embeddings, weight):
        logits = arcface_logits(
            embeddings,
            weight,
            labels,
            scale=float(case["scale"]),
            margin=float(case["margin"]),
        )
        return cross_entropy(logits, labels).mean(), logits

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, logits), grads = grad(embeddings, weight)
    np.testing.assert_allclose(logits, case["logits"], rtol=1e-8)
    np.testing.assert_allclose(value, case["loss"], rtol=1e-8)
    for ours, theirs in zip(grads, ("grad_embedding", "grad_weight"), strict=True):
        np.testing.assert_allclose(ours, case[theirs], rtol=1e-8, atol=1e-12)
