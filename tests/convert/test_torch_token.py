import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokret.convert.torch_token import (  # noqa: E402 (torch comes first)
    ArcFace,
    Attention,
    DropPath,
    Token,
    embed,
)

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
NARROW = {
    "blocks": (1, 1, 1, 1),
    "trunk_width": 4,
    "dim": 24,
    "width": 16,
    "num_heads": 2,
    "tokens": 3,
}


@pytest.fixture(scope="module")
def resnet50_weights(golden, draw):
    """The golden cases' weights, under the released names."""
    names = json.loads(golden("state_dict_names.json").read_text())["resnet50"]
    return {name: torch.tensor(tensor) for name, tensor in draw(names).items()}


@pytest.fixture
def narrow():
    """A small model in which every parameter is at random and none is zero."""
    torch.manual_seed(0)
    model = Token(**NARROW).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(*shape):
    return torch.tensor(np.random.default_rng(0).normal(size=shape), dtype=torch.float)


@pytest.mark.parametrize("trunk", ["resnet50", "resnet101"])
def test_names_shapes_and_their_order_are_the_released_ones(golden, trunk):
    released = json.loads((golden("state_dict_names.json")).read_text())[trunk]
    with torch.device("meta"):
        models = (
            Token(blocks=BLOCKS[trunk], num_classes=100),
            Token(blocks=BLOCKS[trunk]),
        )
    with_classifier, without = (
        [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()]
        for model in models
    )
    assert with_classifier == released
    assert [*without, released[-1]] == released
    assert released[-1][0] == "classifier.weight"


@pytest.mark.slow
def test_golden_descriptors(golden, resnet50_weights):
    arrays = np.load(golden("token_resnet50.npz"))
    with torch.device("meta"):
        model = Token(num_classes=100)
    model.load_state_dict(resnet50_weights, strict=True, assign=True)
    model.eval()
    for i in range(3):
        batch = torch.tensor(arrays[f"image{i}"])
        with torch.inference_mode():
            descriptor, taps = model(batch)
        for ours, theirs in (
            (taps["block1"][:, :8], f"block1_{i}"),
            (taps["block5"], f"block5_{i}"),
            (taps["embedding"], f"head{i}"),
            (descriptor, f"descriptor{i}"),
            (embed(model, batch, (1.0, 2**0.5, 2**-0.5))[0], f"multiscale{i}"),
        ):
            bound = 1e-8 * np.abs(arrays[theirs]).max()
            np.testing.assert_allclose(ours, arrays[theirs], rtol=0, atol=bound)


def test_golden_margin_and_its_gradients(golden):
    case = np.load(golden("arcface.npz"))
    classes, dim = case["weight"].shape
    arcface = ArcFace(classes, dim, float(case["scale"]), float(case["margin"]))
    arcface.weight = torch.nn.Parameter(torch.tensor(case["weight"]))
    embedding = torch.tensor(case["embedding"], requires_grad=True)
    labels = torch.tensor(case["label"])
    logits = arcface(embedding, labels)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    for ours, theirs in (
        (logits, "logits"),
        (loss, "loss"),
        (embedding.grad, "grad_embedding"),
        (arcface.weight.grad, "grad_weight"),
    ):
        np.testing.assert_allclose(
            ours.detach().numpy(), case[theirs], rtol=1e-8, atol=1e-12
        )


def test_mixed_precision_keeps_descriptors_and_margin_in_float32(narrow):
    batch = images(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded, taps = narrow(batch)
    assert taps["tokens"].dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    exact = narrow(batch)[0].detach()
    assert (rounded * exact).sum(dim=-1).min() > 0.99
    arcface = ArcFace(5, 24)
    # At angle 0, where a cosine of 1 would have no gradient.
    aligned = arcface.weight[:2].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = arcface(aligned, torch.arange(2))
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert aligned.grad.isfinite().all() and arcface.weight.grad.isfinite().all()


def test_embed_is_the_normalised_mean_over_scales(narrow):
    batch = images(2, 3, 65, 97)
    one = embed(narrow, batch, (1.0,))
    with torch.no_grad():
        torch.testing.assert_close(one, narrow(batch)[0])
    both = embed(narrow, batch, (1.0, 0.5))
    half = embed(narrow, batch, (0.5,))
    mean = torch.nn.functional.normalize(one + half, dim=-1)
    torch.testing.assert_close(both, mean)
    assert not both.requires_grad


def test_attention_begins_as_released():
    attention = Attention(width=256, num_heads=8, dropout=0.0)
    for layer in (attention.q, attention.k, attention.v):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert not attention.proj.weight.any() and not attention.proj.bias.any()


def test_dropout_falls_on_the_weights_of_attention_in_training_alone():
    attention = Attention(width=8, num_heads=2, dropout=0.5)
    with torch.no_grad():
        attention.proj.weight.copy_(torch.eye(8))
    torch.manual_seed(0)
    x = images(1, 6, 8)
    with torch.no_grad():
        first, second = attention(x, x), attention(x, x)
        # What the output's dropout left both times differs by the weights' alone.
        kept = (first != 0) & (second != 0)
        assert kept.any()
        assert not torch.allclose(first[kept], second[kept])
        attention.eval()
        torch.testing.assert_close(attention(x, x), attention(x, x), rtol=0, atol=0)


def test_drop_path_drops_whole_examples_and_scales_up_the_others():
    torch.manual_seed(0)
    drop = DropPath(0.75)
    dropped = drop(torch.ones(400, 3, 2))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.3)
    drop.eval()
    assert (drop(torch.ones(4, 3, 2)) == 1).all()


def test_channels_last_makes_local_features_without_a_copy(narrow):
    batch = images(2, 3, 64, 80)
    with torch.no_grad():
        expected, _ = narrow(batch)
        narrow.to(memory_format=torch.channels_last)
        found, taps = narrow(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)
    assert taps["local"].is_contiguous()


@pytest.mark.slow
def test_the_compiler_sees_one_graph_at_any_size(narrow):
    compiled = torch.compile(narrow, fullgraph=True, backend="eager")
    with torch.no_grad():
        for batch in (images(2, 3, 64, 80), images(2, 3, 70, 64)):
            torch.testing.assert_close(compiled(batch)[0], narrow(batch)[0])


def test_weights_with_a_wrong_name_are_refused(narrow):
    state_dict = narrow.state_dict()
    state_dict["tr.querry"] = state_dict.pop("tr.query")
    with pytest.raises(RuntimeError, match=r"(?s)tr\.query.*tr\.querry"):
        narrow.load_state_dict(state_dict)
