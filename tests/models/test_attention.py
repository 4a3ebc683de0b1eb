import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.attention import Attention, attention_weights
from tokret.models.heads.token.tokenizer import soft_assignment
from tokret.runtime.compiler_options import inference_options


def test_attention_is_a_softmax_over_the_unmasked_keys():
    rng = np.random.default_rng(0)
    queries = jnp.asarray(rng.normal(size=(2, 3, 2, 4)), jnp.float32)
    keys = jnp.asarray(rng.normal(size=(2, 5, 2, 4)), jnp.float32)
    mask = jnp.array([[True] * 5, [True, True, False, False, False]])
    weights = np.asarray(attention_weights(queries, keys, mask))
    logits = np.einsum("bnhd,bmhd->bhnm", queries, keys) / 2
    for i, count in ((0, 5), (1, 2)):
        known = np.exp(logits[i, :, :, :count])
        known /= known.sum(-1, keepdims=True)
        np.testing.assert_allclose(weights[i, :, :, :count], known, rtol=1e-5)
        assert not weights[i, :, :, count:].any()


def test_huge_logits_are_as_good_as_others():
    """As products they have more digits than float32, by which one may exceed itself.

    All optimisations are on, which other tests turn off to compile faster.
    """
    rng = np.random.default_rng(0)
    queries, keys = (
        jnp.asarray(1e5 * rng.normal(size=(1, 64, 2, 128)), jnp.float32)
        for _ in range(2)
    )
    options = {**inference_options(jnp.float32), "xla_backend_optimization_level": 3}
    weights = jax.jit(attention_weights, compiler_options=options)(queries, keys, None)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_the_tokenizer_is_a_softmax_over_the_tokens():
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    weights = soft_assignment(query, x)
    assert weights.shape == (2, 3, 6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_initial_attention_is_zero_and_dropout_is_for_training():
    x = jnp.ones((1, 3, 4))
    attention = Attention(num_heads=2, dropout=0.5, dtype=jnp.float32)
    variables = jax.jit(attention.init, static_argnames="train")(
        jax.random.key(0), x, x, train=False
    )
    assert not attention.apply(variables, x, x, train=False).any()
    noisy = jax.tree.map(lambda leaf: leaf + 1.0, variables)
    still = attention.apply(noisy, x, x, train=False)
    drawn = [
        attention.apply(noisy, x, x, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any() and (drawn[0] != still).any()


@pytest.mark.parametrize("train", [False, True])
def test_few_queries_equal_attention_by_keys_and_values(train):
    """The form without keys and values, beside the plain equations in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        heads, width, positions = 2, 16, 40
        x, source = (
            jnp.asarray(rng.normal(size=(2, n, width))) for n in (2, positions)
        )
        mask = jnp.arange(positions) < jnp.array([[positions], [7]])
        attention = Attention(heads, 0.5, jnp.float64, few_queries=True)
        key = {"dropout": jax.random.key(3)}
        drawn = jax.jit(attention.init, static_argnames="train")(
            jax.random.key(0), x, source, train=False
        )["params"]
        params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), drawn
        )
        found = jax.jit(attention.apply, static_argnames="train")(
            {"params": params}, x, source, mask, train=False
        )

        def layer(name, inputs):
            y = inputs @ params[name]["kernel"] + params[name]["bias"]
            return y.reshape(*y.shape[:2], heads, -1)

        queries, keys, values = layer("q", x), layer("k", source), layer("v", source)
        weights = attention_weights(queries, keys, mask)
        seen = jnp.einsum("bhnm,bmhe->bnhe", weights, values).reshape(x.shape)
        expected = seen @ params["proj"]["kernel"] + params["proj"]["bias"]
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        if train:
            # Ones for values: what dropout leaves of the weights scales the bias.
            ones = jax.tree.map(jnp.zeros_like, params)
            ones["v"]["bias"] += 1.0
            ones["proj"]["kernel"] += jnp.eye(width)
            left = attention.apply({"params": ones}, x, source, train=True, rngs=key)
            kept = left[left > 0]
            assert kept.size and len(np.unique(np.round(kept, 6))) > 2


@pytest.mark.parametrize("width", [8, 64])
def test_gradients_of_few_queries_equal_those_by_keys_and_values(width):
    """Gradients of both forms, of wide matrices and of narrow ones."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(5)
        x, source = (jnp.asarray(rng.normal(size=(3, n, width))) for n in (1, 30))
        few, many = (
            Attention(2, 0.0, jnp.float64, few_queries=few) for few in (True, False)
        )
        drawn = jax.jit(few.init, static_argnames="train")(
            jax.random.key(0), x, source, train=False
        )
        drawn = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), drawn
        )

        def total(form, variables, x, source):
            return jnp.sum(jnp.sin(form.apply(variables, x, source, train=False)))

        found, expected = (
            jax.grad(functools.partial(total, form), argnums=(0, 1, 2))(
                drawn, x, source
            )
            for form in (few, many)
        )
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-10), found, expected
        )


def test_both_forms_draw_the_same_weights():
    x, source = jnp.ones((1, 2, 16)), jnp.ones((1, 40, 16))
    forms = [Attention(2, 0.0, jnp.float32, few_queries=few) for few in (True, False)]
    both = [
        jax.jit(form.init, static_argnames="train")(
            jax.random.key(0), x, source, train=False
        )
        for form in forms
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)
