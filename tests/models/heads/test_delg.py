import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.heads.delg import LocalBranch
from tokret.models.heads.gem import GeMHead
from tokret.models.preprocessing import IMAGENET, PixelScale
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.shapes import Array


def test_local_features_are_normalised_over_channels_and_weighted():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6), jnp.float64)
        branch = LocalBranch(dim=5, dtype=jnp.float64)
        variables = branch.init(jax.random.key(1), x)
        taps = branch.apply(variables, x)
    p = jax.tree.map(np.asarray, variables["params"])
    flat = np.asarray(x).reshape(2, 12, 6)
    assert set(p["attention"]) == {"kernel"}
    scores = np.log1p(np.exp(flat @ p["attention"]["kernel"][0, 0]))  # [b, n, 1]
    reduced = flat @ p["reduction"]["kernel"][0, 0] + p["reduction"]["bias"]
    reduced /= np.linalg.norm(reduced, axis=-1, keepdims=True)
    expected = (scores * reduced).mean(1)
    np.testing.assert_allclose(taps["pooled_local"], expected, rtol=1e-6)
    maps = taps["local_attention"].reshape(2, 12, 1)
    np.testing.assert_allclose(maps, scores, rtol=1e-6)


def test_the_branch_runs_in_training_only_without_gradient_to_the_trunk():
    trunk = ResNet(blocks=(1, 1, 1), block=BasicBlock, width=4)
    model = RetrievalNet(trunk, GeMHead(dim=8), LocalBranch())
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(1), images, train=False))()
    assert set(variables["params"]) == {"trunk", "head", "local"}
    _, taps = jax.jit(lambda v: model.apply(v, images, train=False))(variables)
    assert "pooled_local" not in taps

    def local(params):
        (_, taps), _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        assert taps["pooled_local"].shape == (2, 128)
        return jnp.sum(taps["pooled_local"][:, ::2])

    grads = jax.jit(jax.grad(local))(variables["params"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads["trunk"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(grads["local"]))


def test_by_name():
    model = build_model(trunk="tiny", head="delg", dtype="float32", local_loss=True)
    assert model.local == LocalBranch() and model.head == GeMHead()
    assert build_model(trunk="tiny", head="delg", dtype="float32").local is None


class NoStages(nn.Module):
    pixels: PixelScale = IMAGENET

    def __call__(self, images: Array, sizes: None = None, *, train: bool):
        return images, sizes, {}


def test_a_trunk_without_the_stage_is_refused():
    model = RetrievalNet(NoStages(), GeMHead(dim=8), LocalBranch())
    with pytest.raises(UserError, match=r"local_loss.*block4"):
        jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32),
        )
