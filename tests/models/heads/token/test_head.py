import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import ResNet

SMALL = {"dim": 24, "width": 16, "num_heads": 2, "tokens": 3}


@pytest.fixture(scope="module")
def small():
    with jax.enable_x64(True):
        double = jnp.float64
        trunk = ResNet(blocks=(1, 1, 1, 1), width=4, dtype=double)
        model = RetrievalNet(trunk, TokenHead(**SMALL, dtype=double))
        shapes = jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, 64, 64, 3), double),
        )
        # Everything at random: zero output projections, as training begins with, would
        # hide what attention does with padding.
        rng = np.random.default_rng(1)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(-0.2, 0.4, leaf.shape)), shapes
        )
        variables["batch_stats"] = jax.tree.map(
            lambda leaf: jnp.abs(leaf) + 0.1, variables["batch_stats"]
        )
        yield model, variables


def test_an_image_in_a_padded_batch_equals_the_image_alone(small):
    model, variables = small
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        sizes = np.array([[64, 96], [33, 70], [61, 31], [1, 95]], np.int32)
        # Garbage in the padding: it must not be looked at.
        batch = rng.normal(size=(4, 64, 96, 3))
        apply = jax.jit(lambda x, s: model.apply(variables, x, s, train=False))
        together, taps = apply(batch, sizes)
        for i, (height, width) in enumerate(sizes):
            alone = jax.jit(lambda x: model.apply(variables, x, train=False))(
                batch[i : i + 1, :height, :width]
            )
            np.testing.assert_allclose(together[i], alone[0][0], rtol=0, atol=1e-12)
            maps = alone[1]["attention"][0]
            padded = taps["attention"][i]
            np.testing.assert_allclose(
                padded[:, : maps.shape[1], : maps.shape[2]], maps, atol=1e-12
            )
            assert not padded[:, maps.shape[1] :].any()


def test_outputs_and_intermediates(small):
    model, variables = small
    with jax.enable_x64(True):
        images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
        descriptor, taps = jax.jit(lambda x: model.apply(variables, x, train=False))(
            images
        )
    assert descriptor.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(descriptor, axis=1), 1, rtol=1e-12)
    assert taps["attention"].shape == (2, 3, 2, 2)
    np.testing.assert_allclose(taps["attention"].sum(axis=1), 1, rtol=1e-12)
    names = {"block1", "block5", "local", "lfsa", "tokens", "refined0", "refined1"}
    assert names <= set(taps)


def test_initialisation_is_the_released_one():
    model = build_model(
        trunk="tiny", head="token", dtype="float32", dim=256, width=256, num_heads=8
    )
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    head = init(jax.random.key(0))["params"]["head"]
    for attention in (head["encoder0"]["attn"], head["decoder1"]["cross_attn"]):
        assert not attention["proj"]["kernel"].any()
        assert not attention["q"]["bias"].any()
        assert float(attention["q"]["kernel"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(head["tokenizer"]["query"].std()) == pytest.approx(1, rel=0.1)
    kernel = head["proj"]["kernel"]  # uniform in +-1/sqrt(fan in)
    bound = kernel.shape[0] ** -0.5
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    assert 0 < float(jnp.abs(head["proj"]["bias"]).max()) <= bound


def test_lossless_initialisers_give_the_mean_of_the_features():
    sizes = {"dim": 12, "width": 16, "num_heads": 2, "tokens": 4}
    head = TokenHead(**sizes, initialiser="lossless", query_init_std=0.0)
    with jax.enable_x64(True):
        features = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (5, 3, 3, 24)))
        variables = jax.jit(head.init, static_argnames="train")(
            jax.random.key(0), features, train=False
        )
        found = jax.jit(head.apply, static_argnames="train")(
            variables, features, train=False
        )[0]
    kernels = jax.tree.map(np.asarray, variables["params"])
    reduce, turn = kernels["conv"]["kernel"][0, 0], kernels["tokenizer"]["linear"]
    join = kernels["proj"]["kernel"].reshape(4, 16, 12)
    for kernel in (reduce, turn["kernel"], 2 * join[3]):  # no angle is lost
        np.testing.assert_allclose(
            kernel.T @ kernel, np.eye(kernel.shape[1]), atol=1e-5
        )
    tokens = np.asarray(features).mean((1, 2)) @ reduce @ turn["kernel"]
    tokens = tokens - tokens.mean(1, keepdims=True)  # a layer norm
    for ours, mean in zip(found, tokens @ join[0], strict=True):
        cosine = ours @ mean / np.linalg.norm(ours) / np.linalg.norm(mean)
        assert cosine == pytest.approx(1, abs=1e-6)
    branches = [kernels[f"decoder{i}"]["fc2"] for i in (0, 1)]
    assert not any(np.any(b["kernel"]) for b in (*branches, kernels["encoder0"]["mlp"]))


def test_bfloat16_computes_in_it_and_answers_in_float32():
    options = {"trunk": "tiny", "head": "token", "dim": 32, "width": 32, "num_heads": 2}
    models = {d: build_model(dtype=d, **options) for d in ("float32", "bfloat16")}
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    variables = jax.jit(
        lambda: models["float32"].init(jax.random.key(0), images, train=False)
    )()
    descriptors = {}
    for name, model in models.items():
        found, taps = jax.jit(lambda x, m=model: m.apply(variables, x, train=False))(
            images
        )
        assert taps["tokens"].dtype == name
        assert found.dtype == jnp.float32
        descriptors[name] = np.asarray(found)[0]
    assert descriptors["float32"] @ descriptors["bfloat16"] > 0.99


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("trunk", "resnet52", "resnet50"),
        ("dtype", "float16", "bfloat16"),
        ("head", "tokn", "token"),
    ],
)
def test_invalid_fields_are_named(field, value, message):
    options = {"trunk": "tiny", "head": "token", "dtype": "float32", field: value}
    with pytest.raises(UserError, match=message):
        build_model(**options)
