import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.plain_flax import PlainResNet, PlainTokenHead
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import ResNet


@pytest.fixture(scope="module")
def nets():
    ours = RetrievalNet(ResNet((1, 2)), TokenHead(dim=64, width=64))
    plain = RetrievalNet(
        PlainResNet((1, 2), jnp.float32), PlainTokenHead(jnp.float32, dim=64)
    )
    return ours, plain


@pytest.fixture(scope="module")
def variables(nets):
    """Weights that a step could have left: nothing starts at zero."""
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(
        lambda: nets[0].init(jax.random.key(0), images, train=False)
    )
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        low = 0.5 if path[-1].key in ("scale", "var") else -0.1
        return jnp.asarray(rng.uniform(low, low + 0.2, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def test_it_is_the_same_model_by_the_same_names(nets, variables):
    images = jnp.asarray(np.random.default_rng(1).standard_normal((2, 64, 64, 3)))
    ours, plain = (
        jax.jit(lambda v, x, net=net: net.apply(v, x, train=False)[0])(
            variables, images.astype(jnp.float32)
        )
        for net in nets
    )
    np.testing.assert_allclose(plain, ours, atol=1e-5)
    assert np.ptp(np.asarray(ours)) > 0.01  # there is something to compare


def test_it_trains_from_the_same_statistics(nets, variables):
    """Dropout draws other numbers, the trunk's batch norms have none before them."""
    images = jnp.asarray(np.random.default_rng(2).standard_normal((4, 64, 64, 3)))
    ours, plain = (
        jax.jit(
            lambda v, x, net=net: net.apply(
                *(v, x),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )[1]["batch_stats"]["trunk"]
        )(variables, images.astype(jnp.float32))
        for net in nets
    )
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for path, mean in jax.tree_util.tree_leaves_with_path(ours):
        if path[-1].key == "mean":
            theirs = plain
            for key in path:
                theirs = theirs[key.key]
            np.testing.assert_allclose(theirs, mean, rtol=1e-4, atol=1e-5)
