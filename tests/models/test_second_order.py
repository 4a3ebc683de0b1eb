import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.build import TRUNKS
from tokret.models.layers import BatchNorm
from tokret.models.second_order import SecondOrderAttention
from tokret.models.trunks.resnet import BasicBlock, ResNet


def test_a_new_block_changes_nothing_and_its_projections_are_kaiming_normal():
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 512))
    block = SecondOrderAttention(128, jnp.float32)
    variables = jax.jit(lambda: block.init(jax.random.key(1), x, None, train=False))()
    run = jax.jit(lambda v: block.apply(v, x, None, train=False))
    np.testing.assert_array_equal(run(variables), x)
    params = variables["params"]
    assert set(params) == {"f_conv", "f_bn", "g_conv", "g_bn", "h", "v"}
    for name in ("f_conv", "g_conv", "h"):
        kernel = params[name]["kernel"]
        np.testing.assert_allclose(kernel.std(), (2 / 512) ** 0.5, rtol=0.02)
        assert not params[name]["bias"].any()


def test_every_position_attends_to_all_by_a_softmax():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(1, 2, 3, 8)))
        block = SecondOrderAttention(4, jnp.float64)
        variables = block.init(jax.random.key(1), x, None, train=False)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), variables
        )
        out = block.apply(variables, x, None, train=False)
        flat = np.asarray(x).reshape(6, 8)
        p, s = variables["params"], variables["batch_stats"]

        def conv(name, y):
            return y @ np.asarray(p[name]["kernel"])[0, 0] + np.asarray(p[name]["bias"])

        def view(name):
            norm = {"params": p[f"{name}_bn"], "batch_stats": s[f"{name}_bn"]}
            y = jnp.asarray(conv(f"{name}_conv", flat))
            y = BatchNorm().apply(norm, y, train=False)
            return np.maximum(y, 0)

        weights = np.exp(view("f") @ view("g").T / 2)
        weights /= weights.sum(1, keepdims=True)
        expected = flat + conv("v", weights @ conv("h", flat))
        np.testing.assert_allclose(out.reshape(6, 8), expected, rtol=1e-12)


def test_padding_does_not_reach_a_trunk_with_a_block():
    with jax.enable_x64(True):
        trunk = ResNet(
            blocks=(1, 1, 1, 1),
            block=BasicBlock,
            width=4,
            second_order=True,
            dtype=jnp.float64,
        )
        rng = np.random.default_rng(0)
        batch = jnp.asarray(rng.normal(size=(2, 96, 128, 3)))
        sizes = np.array([[96, 70], [33, 128]], np.int32)
        shapes = jax.eval_shape(
            lambda: trunk.init(jax.random.key(0), batch, train=False)
        )
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(-0.2, 0.5, leaf.shape)), shapes
        )
        variables["batch_stats"] = jax.tree.map(
            lambda leaf: jnp.abs(leaf) + 0.1, variables["batch_stats"]
        )
        run = jax.jit(lambda x, s=None: trunk.apply(variables, x, s, train=False))
        features, _, stages = run(batch, sizes)
        assert float(jnp.abs(stages["soa4"] - stages["block4"]).max()) > 0.1
        for i, (h, w) in enumerate(sizes):
            alone = run(batch[i : i + 1, :h, :w])[0][0]
            there = features[i, : alone.shape[0], : alone.shape[1]]
            np.testing.assert_allclose(there, alone, rtol=0, atol=1e-10)


def test_the_released_trunk_has_one_of_a_quarter_of_its_channels():
    trunk = TRUNKS["resnet50_soa4"]()
    shapes = jax.eval_shape(
        lambda x: trunk.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
    )
    block = shapes["params"]["soa4"]
    assert block["f_conv"]["kernel"].shape == (1, 1, 1024, 256)
    assert block["v"]["kernel"].shape == (1, 1, 256, 1024)
