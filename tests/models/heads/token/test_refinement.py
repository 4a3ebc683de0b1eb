import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.attention import Attention
from tokret.models.heads.token.head import TokenHead
from tokret.models.heads.token.refinement import PaperRefinementLayer


def norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def test_the_papers_order_self_then_cross_each_with_its_norm():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        tokens, x = (jnp.asarray(rng.normal(size=(2, n, 8))) for n in (3, 5))
        mask = jnp.arange(5) < jnp.array([[5], [2]])
        layer = PaperRefinementLayer(2, 0.0, 0.0, jnp.float64)
        shapes = layer.init(jax.random.key(0), tokens, x, mask, train=False)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes
        )
        out = layer.apply(variables, tokens, x, mask, train=False)
        params = variables["params"]
        assert set(params) == {"self_attn", "norm1", "cross_attn", "norm2"}
        attention = Attention(2, 0.0, jnp.float64)

        def attend(name, *arguments):
            return attention.apply({"params": params[name]}, *arguments, train=False)

        own = attend("self_attn", tokens, tokens)
        between = norm(tokens + own, params["norm1"])
        cross = attend("cross_attn", between, x, mask)
        np.testing.assert_allclose(
            out, norm(between + cross, params["norm2"]), rtol=1e-9
        )


def test_forms_are_chosen_by_name():
    head = TokenHead(dim=8, width=8, num_heads=2, tokenizer="paper", refinement="paper")
    shapes = jax.eval_shape(
        lambda x: head.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 2, 2, 4), jnp.float32),
    )
    assert set(shapes["params"]["tokenizer"]) == {"maps"}
    assert "fc1" not in shapes["params"]["decoder0"]
