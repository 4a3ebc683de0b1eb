import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tokret.convert.parity import (  # noqa: E402 (torch comes first)
    StageDifference,
    compare,
    compare_model,
    report,
)
from tokret.convert.released import from_released  # noqa: E402 (torch comes first)
from tokret.convert.torch_token import Token  # noqa: E402 (torch comes first)
from tokret.errors import UserError  # noqa: E402 (torch comes first)
from tokret.models.heads.token.head import TokenHead  # noqa: E402 (torch comes first)
from tokret.models.retrieval_net import RetrievalNet  # noqa: E402 (torch comes first)
from tokret.models.trunks.resnet import ResNet  # noqa: E402 (torch comes first)

TRUNK = {"blocks": (1, 2, 1, 1), "width": 4}
HEAD = {"dim": 24, "width": 16, "num_heads": 2, "tokens": 3}
NO_DROPOUT = {"dropout": 0.0, "drop_path": 0.0}
MODEL = RetrievalNet(ResNet(**TRUNK), TokenHead(**HEAD))
STAGES = (
    *("block1", "block2", "block3", "block4", "block5", "local", "lfsa", "attention"),
    *("tokens", "refined0", "refined1", "embedding", "descriptor"),
)
CANVAS = 96  # one image of this side in each batch: one compilation
SIDE = st.integers(1, CANVAS)


def mirror():
    return Token(
        blocks=TRUNK["blocks"], trunk_width=TRUNK["width"], **HEAD, **NO_DROPOUT
    ).double()


def drawn(name, shape, rng):
    """Zero output projections, as training begins with, would hide the attention."""
    normal = rng.standard_normal(shape)
    if name.endswith("running_var"):
        return np.exp(0.2 * normal)
    if len(shape) < 2:
        return 0.1 * normal + (name.endswith("weight"))
    return normal * (2 / np.prod(shape[1:])) ** 0.5


@pytest.fixture(scope="module")
def state_dict():
    rng = np.random.default_rng(0)
    return {
        name: drawn(name, tuple(tensor.shape), rng)
        for name, tensor in mirror().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def variables(state_dict):
    return from_released(state_dict)


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.tuples(SIDE, SIDE), min_size=2, max_size=2), seed=SIDE)
def test_both_models_agree_at_any_size(state_dict, variables, sizes, seed):
    sizes = [*sizes, (CANVAS, CANVAS)]
    rows = compare_model(state_dict, MODEL, sizes=sizes, seed=seed, variables=variables)
    assert tuple(row.stage for row in rows) == STAGES
    for row in rows:
        assert row.difference <= 1e-8 * max(row.magnitude, 1e-3), row
        assert row.magnitude > 1e-3, row


def torch_step(state_dict, images, weights):
    """Gradients in the parameters' places and running statistics after one step."""
    model = mirror()
    model.load_state_dict({k: torch.tensor(v) for k, v in state_dict.items()})
    descriptor, taps = model.train()(torch.tensor(images.transpose(0, 3, 1, 2)))
    value = torch.sum(taps["embedding"] * torch.tensor(weights[0]))
    value = value + torch.sum(descriptor * torch.tensor(weights[1]))
    value.backward()
    found = {name: p.grad.numpy() for name, p in model.named_parameters()}
    found |= {name: b.numpy() for name, b in model.named_buffers()}
    return value.item(), from_released(found)


def tokret_step(state_dict, images, weights):
    double = {"dtype": jnp.float64}
    model = RetrievalNet(
        ResNet(**TRUNK, **double), TokenHead(**HEAD, **NO_DROPOUT, **double)
    )
    variables = jax.tree.map(jnp.asarray, from_released(state_dict))

    def value(params):
        (descriptor, taps), after = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            jnp.asarray(images),
            train=True,
            mutable=["batch_stats"],
        )
        total = jnp.sum(taps["embedding"] * weights[0] + descriptor * weights[1])
        return total, after["batch_stats"]

    step = jax.jit(jax.value_and_grad(value, has_aux=True))
    (total, after), grads = step(variables["params"])
    return float(total), {"params": grads, "batch_stats": after}


def test_gradients_and_running_statistics_of_a_training_step(state_dict):
    rng = np.random.default_rng(1)
    images = rng.standard_normal((4, 65, 96, 3))
    weights = rng.standard_normal((2, 4, HEAD["dim"]))
    value, theirs = torch_step(state_dict, images, weights)
    with jax.enable_x64(True):
        total, ours = tokret_step(state_dict, images, weights)
    assert total == pytest.approx(value, rel=1e-8)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        # A bias before a batch norm and a key's have no gradient: both are rounding.
        bound = 1e-8 * max(np.abs(b).max(), 1e-4)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize(
    ("collection", "path", "first"),
    [
        ("params", ("trunk", "conv1", "kernel"), "block1"),
        ("batch_stats", ("trunk", "layer2_block1", "bn2", "mean"), "block3"),
        ("params", ("trunk", "layer4_block0", "downsample_conv", "kernel"), "block5"),
        ("params", ("head", "conv", "bias"), "local"),
        ("batch_stats", ("head", "encoder0", "bn", "var"), "lfsa"),
        ("params", ("head", "tokenizer", "query"), "attention"),
        ("params", ("head", "tokenizer", "norm", "scale"), "tokens"),
        ("params", ("head", "decoder0", "cross_attn", "v", "kernel"), "refined0"),
        ("params", ("head", "decoder1", "fc2", "bias"), "refined1"),
        ("params", ("head", "proj", "kernel"), "embedding"),
    ],
)
def test_a_wrong_weight_shows_at_its_stage_and_after(
    state_dict, collection, path, first
):
    variables = from_released(state_dict)
    *above, leaf = path
    place = variables[collection]
    for key in above:
        place = place[key]
    place[leaf] = 1.01 * place[leaf]
    rows = compare_model(
        state_dict,
        MODEL,
        sizes=[(CANVAS, CANVAS), (61, 75), (96, 40)],
        seed=0,
        variables=variables,
    )
    differing = tuple(row.stage for row in rows if row.relative > 1e-8)
    assert differing == STAGES[STAGES.index(first) :]
    assert report(rows).splitlines()[-1].endswith(f"the first of them {first}")


def test_the_report_of_a_narrow_model(state_dict):
    rows = compare_model(
        state_dict, MODEL, sizes=[(CANVAS, CANVAS), (61, 75), (96, 40)], seed=0
    )
    first, *table, last = report(rows).splitlines()
    assert first.split() == ["stage", "difference", "largest", "value", "relative"]
    assert tuple(line.split()[0] for line in table) == STAGES
    assert last == "all 13 stages agree to 1e-08 of their largest value"


def test_float32_is_near(state_dict):
    sizes = [(64, 64), (33, 64)]
    rows = compare_model(state_dict, MODEL, sizes=sizes, seed=0, dtype="float32")
    assert 1e-9 < max(row.relative for row in rows) < 1e-4


def test_nan_and_a_difference_from_zero_are_not_agreement():
    rows = [
        StageDifference("block1", 0.0, 0.0),
        StageDifference("block2", float("nan"), 1.0),
        StageDifference("block3", 1e-12, 0.0),
    ]
    last = report(rows).splitlines()[-1]
    assert last.startswith("2 of 3 stages differ by more than 1e-08")
    assert last.endswith("block2")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trunk": "tiny", "head": "token"}, "bottleneck"),
        ({"trunk": "resnet50", "head": "token", "width": 64}, "do not fit"),
        ({"trunk": "resnet50", "head": "tokens"}, "must be one of"),
    ],
)
def test_what_cannot_be_compared_is_refused(state_dict, fields, words):
    with pytest.raises(UserError, match=words):
        compare(state_dict, fields)


def test_without_torch_the_extra_is_named(state_dict, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install torch"):
        compare(state_dict, {"trunk": "resnet50", "head": "token"})
