import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.attention import Attention, attend
from tokret.models.tokenizer import assign


def test_attention_is_a_softmax_over_the_keys_that_exist():
    rng = np.random.default_rng(0)
    queries = jnp.asarray(rng.normal(size=(2, 3, 2, 4)), jnp.float32)
    keys = jnp.asarray(rng.normal(size=(2, 5, 2, 4)), jnp.float32)
    mask = jnp.array([[True] * 5, [True, True, False, False, False]])
    weights = np.asarray(attend(queries, keys, mask))
    logits = np.einsum("bnhd,bmhd->bhnm", queries, keys) / 2
    for i, count in ((0, 5), (1, 2)):
        known = np.exp(logits[i, :, :, :count])
        known /= known.sum(-1, keepdims=True)
        np.testing.assert_allclose(weights[i, :, :, :count], known, rtol=1e-5)
        assert not weights[i, :, :, count:].any()


def test_the_tokenizer_is_a_softmax_over_the_tokens():
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    weights = assign(query, x)
    assert weights.shape == (2, 3, 6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_an_attention_begins_with_nothing_and_drops_only_in_training():
    x = jnp.ones((1, 3, 4))
    attention = Attention(heads=2, dropout=0.5, dtype=jnp.float32)
    variables = attention.init(jax.random.key(0), x, x, train=False)
    assert not attention.apply(variables, x, x, train=False).any()
    noisy = jax.tree.map(lambda leaf: leaf + 1.0, variables)
    still = attention.apply(noisy, x, x, train=False)
    drawn = [
        attention.apply(noisy, x, x, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any() and (drawn[0] != still).any()
