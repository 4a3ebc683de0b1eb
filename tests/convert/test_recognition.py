import json

import pytest

from tokret.convert.recognition import (
    Found,
    UnknownModelError,
    foreign_prefix,
    from_header,
    header,
    problems,
    recognise,
    wanted_shapes,
)
from tokret.convert.tensor_names import LAYOUTS
from tokret.errors import UserError

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name, side):
    return {
        f"{name}.{leaf}": (side,) if "num" not in leaf else () for leaf in BATCH_NORM
    }


def linear(name, out, inputs, *kernel):
    return {f"{name}.weight": (out, inputs, *kernel), f"{name}.bias": (out,)}


# What the authors' other checkpoints hold beside their trunk, at their own sizes.
WHITEN = linear("whiten", 2048, 2048, 1, 1)
LABELS = {"classifier.weight": (81313, 2048)}
SECOND_ORDER = {
    **linear("pooling.f.0", 1024, 2048, 1, 1),
    **norm("pooling.f.1", 1024),
    **linear("pooling.g.0", 1024, 2048, 1, 1),
    **norm("pooling.g.1", 1024),
    **linear("pooling.h", 1024, 2048, 1, 1),
    **linear("pooling.v", 2048, 1024, 1, 1),
}
VLAD = {
    "vlad.centroids": (1, 1024, 4),
    **linear("vlad.encoder.attn.q", 1024, 1024),
    **linear("vlad.encoder.attn.k", 1024, 1024),
    **linear("vlad.encoder.attn.v", 1024, 1024),
    **linear("vlad.encoder.attn.proj", 1024, 1024),
    **norm("vlad.encoder.bn", 1024),
    **linear("vlad.encoder.mlp", 1024, 1024),
    **linear("vlad.conv.0", 1024, 2048, 1, 1),
    **norm("vlad.conv.1", 1024),
    **linear("vlad.proj.0", 1024, 4096),
    **norm("vlad.proj.1", 1024),
    "classifier.weight": (81313, 1024),
}
DELG = {
    **WHITEN,
    "classifier_block5.weight": (81313, 2048),
    "classifier_block4.weight": (81313, 128),
    "attention.att_conv1.weight": (1, 1024, 1, 1),
    **linear("reduction", 128, 1024, 1, 1),
}
HEADS = {
    "gem": {**WHITEN, **LABELS},
    "rmac": {**WHITEN, **LABELS},
    "solar": {**SECOND_ORDER, **WHITEN, **LABELS},
    "netvlad": VLAD,
    "delg": DELG,
}


@pytest.fixture(scope="module")
def released(shared):
    """Names and shapes of the authors' Token checkpoints, by trunk."""
    names = json.loads((shared / "golden" / "state_dict_names.json").read_text())
    return {
        trunk: {name: tuple(shape) for name, shape in pairs}
        for trunk, pairs in names.items()
    }


def backbone(shapes):
    return {name: shape for name, shape in shapes.items() if "backbone" in name}


@pytest.mark.parametrize("trunk", ["resnet50", "resnet101"])
def test_the_authors_token(released, trunk):
    shapes = released[trunk]
    found = recognise(shapes, None, None)
    assert found.layout == "token"
    assert found.model["trunk"] == trunk
    assert (found.model["tokens"], found.model["num_heads"]) == (4, 8)
    assert (found.model["attention_layers"], found.model["refinement_layers"]) == (1, 2)
    assert problems(shapes, wanted_shapes(found, shapes)) == []


@pytest.mark.parametrize("head", HEADS)
def test_the_authors_rivals(released, head):
    shapes = backbone(released["resnet101"]) | HEADS[head]
    known = head if head in ("gem", "rmac") else None
    found = recognise(shapes, known, None)
    assert found.model["head"] == head and found.model["trunk"] == "resnet101"
    assert problems(shapes, wanted_shapes(found, shapes)) == []


def test_second_order_attention_inside_the_trunk(released):
    inside = {
        name.replace("pooling", "backbone.soa4"): tuple(
            {1024: 256, 2048: 1024}.get(side, side) for side in shape
        )
        for name, shape in SECOND_ORDER.items()
    }
    shapes = backbone(released["resnet50"]) | HEADS["solar"] | inside
    found = recognise(shapes, None, None)
    assert found.model["trunk"] == "resnet50_soa4"
    assert problems(shapes, wanted_shapes(found, shapes)) == []


def test_torchvisions_resnet(released):
    def renamed(name):
        name = name.replace("backbone.block1.0", "conv1")
        name = name.replace("backbone.block1.1", "bn1")
        for stage in range(2, 6):
            name = name.replace(f"backbone.block{stage}", f"layer{stage - 1}")
        return name

    trunk = backbone(released["resnet50"])
    shapes = {renamed(name): shape for name, shape in trunk.items()}
    shapes |= linear("fc", 1000, 2048)
    found = recognise(shapes, None, None)
    assert (found.layout, found.model["trunk"]) == ("torchvision", "resnet50")
    assert problems(shapes, wanted_shapes(found, shapes)) == []


def test_a_renamed_tensor_is_named_under_both_names(released):
    shapes = dict(released["resnet50"])
    shapes["tr.querry"] = shapes.pop("tr.query")
    shapes["tr.conv.0.bias"] = (7,)
    found = recognise(shapes, None, None)
    assert problems(shapes, wanted_shapes(found, shapes)) == [
        "tr.query is missing",
        "tr.querry is not the model's",
        "tr.conv.0.bias has shape [7], not [1024]",
    ]


def test_a_head_that_shapes_do_not_show_is_required(released):
    shapes = backbone(released["resnet50"]) | HEADS["gem"]
    with pytest.raises(UserError, match="set head to gem or to rmac"):
        recognise(shapes, None, None)
    with pytest.raises(UserError, match="head is gem, but its tensors are token's"):
        recognise(released["resnet50"], "gem", None)
    for name in ("encoder.layer.0.weight", "backbone.blocks.0.attn.qkv.weight"):
        with pytest.raises(UnknownModelError, match="no tensors of a known model"):
            recognise({name: (3, 3)}, None, None)


@pytest.mark.parametrize(
    "prefix", ["backbone.", "encoder.", "model.", "model.encoder.", "student.net."]
)
def test_a_foreign_prefix_of_all_names_is_found(released, prefix):
    trunks = [released["resnet50"], {"conv1.weight": (), "layer1.0.conv1.weight": ()}]
    for names in trunks:
        assert foreign_prefix([f"{prefix}{name}" for name in names]) == prefix
        assert foreign_prefix(names) == ""


def test_a_trunk_beside_other_tensors_is_to_be_chosen():
    names = ["backbone.layer1.0.conv1.weight", "head.fc.weight", "head.fc.bias"]
    with pytest.raises(
        UserError,
        match=r"^state: .* below backbone\. and 2 other .*head\.fc\.weight.*"
        "state=backbone takes the trunk alone$",
    ):
        foreign_prefix(names)
    twice = [f"{side}.layer1.0.conv1.weight" for side in ("student", "teacher")]
    with pytest.raises(UserError, match="state=student takes"):
        foreign_prefix(twice)


def test_many_problems_of_one_kind_are_counted(released):
    shapes = released["resnet50"]
    found = problems({}, wanted_shapes(recognise(shapes, None, None), shapes))
    assert len(found) == 9 and found[-1].endswith(" more are missing")


@pytest.mark.parametrize("side", [0, 2**40])
def test_absurd_shapes_are_problems_like_any_other(released, side):
    shapes = released["resnet50"] | {"tr.query": (1, side, side)}
    found = recognise(shapes, None, None)
    assert problems(shapes, wanted_shapes(found, shapes)) == [
        f"tr.query has shape [1, {side}, {side}], not [1, 4, 1024]"
    ]


def test_the_header_has_what_names_do_not_show():
    found = Found("token", {"trunk": "tiny", "head": "token", "num_heads": 2})
    assert from_header(header(found)) == found
    assert from_header({}) is None
    for damaged in ("", "{", "[]", '{"layout": "x", "model": {}}', "[" * 10**5):
        with pytest.raises(UserError, match="header"):
            from_header({"tokret": damaged})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_rows_of_a_layout_meet(layout):
    rows = LAYOUTS[layout]
    assert len({row.released for row in rows}) == len(rows)
    assert len({(row.collection, row.path) for row in rows}) == len(rows)
