import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.heads.token.tokenizer import PaperTokenizer


def tokenize(kernel, bias, x, mask=None):
    tokenizer = PaperTokenizer(len(bias), 1.0, x.dtype)
    variables = {"params": {"maps": {"kernel": kernel, "bias": bias}}}
    return tokenizer.apply(variables, x, mask)


def test_the_papers_tokens_are_weighted_means():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    x = rng.normal(size=(2, 6, 4))
    mask = np.arange(6) < np.array([[6], [2]])
    with jax.enable_x64(True):
        arrays = map(jnp.asarray, (kernel, bias, x, mask))
        tokens, maps = tokenize(*arrays)
    weights = np.exp(x @ kernel + bias)
    weights = weights / weights.sum(-1, keepdims=True) * mask[..., None]  # [b, n, l]
    np.testing.assert_allclose(maps, weights.swapaxes(1, 2), rtol=1e-12)
    sums = weights.swapaxes(1, 2) @ x
    expected = sums / weights.sum(1)[..., None]
    np.testing.assert_allclose(tokens, expected, rtol=1e-10)


def test_a_token_that_nothing_belongs_to_is_still_a_mean():
    # Its weights vanish in float32: exp(-500).
    kernel, bias = jnp.zeros((4, 2)), jnp.array([0.0, -500.0])
    x = jax.random.normal(jax.random.key(0), (1, 6, 4))

    def summed(bias):
        tokens, maps = tokenize(kernel, bias, x)
        return tokens[0, 1].sum(), (tokens, maps)

    (_, (tokens, maps)), grad = jax.value_and_grad(summed, has_aux=True)(bias)
    assert not maps[0, 1].any()
    np.testing.assert_allclose(tokens[0, 1], x[0].mean(0), rtol=1e-5, atol=1e-6)
    assert np.isfinite(np.asarray(grad)).all()


def test_one_token_is_the_mean_of_what_exists():
    x = jax.random.normal(jax.random.key(0), (1, 6, 4)).at[0, 3:].set(1e6)
    mask = jnp.arange(6)[None] < 3
    tokens, _ = tokenize(jnp.ones((4, 1)), jnp.zeros(1), x, mask)
    np.testing.assert_allclose(tokens[0, 0], x[0, :3].mean(0), rtol=1e-5)
