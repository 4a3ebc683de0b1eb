"""Names of PyTorch's tensors and of tokret's variables: one table a layout.

Both directions of a conversion use the same rows; `{}` in a row matches a number. A
variable is named by its collection and its path in it: "params" and "batch_stats" have
the model under trunk, head and local, and every classifier is a collection of its own.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


class Form(NamedTuple):
    """How a tensor's axes change: released tensor -> variable, and back."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_released: Callable[[np.ndarray], np.ndarray]


SAME = Form(lambda tensor: tensor, lambda leaf: leaf)
CONVOLUTION = Form(  # [out, in, h, w] <-> [h, w, in, out]
    lambda tensor: tensor.transpose(2, 3, 1, 0),
    lambda leaf: leaf.transpose(3, 2, 0, 1),
)
LINEAR = Form(np.transpose, np.transpose)  # [out, in] <-> [in, out]
POINTWISE = Form(  # a released 1x1 convolution, a dense layer of tokret
    lambda tensor: tensor[:, :, 0, 0].T, lambda leaf: leaf.T[:, :, None, None]
)
LEADING = Form(lambda tensor: tensor[0], lambda leaf: leaf[None])  # [1, ...] <-> [...]


class Row(NamedTuple):
    """A released tensor's name, its variable's collection and path, and its form."""

    released: str
    collection: str
    path: str
    form: Form


def _layer(released: str, ours: str, form: Form) -> list[Row]:
    """Rows of a layer with a weight and, perhaps, a bias."""
    return [
        Row(f"{released}.weight", "params", f"{ours}/kernel", form),
        Row(f"{released}.bias", "params", f"{ours}/bias", SAME),
    ]


def _norm(released: str, ours: str) -> list[Row]:
    """Rows of a layer norm or a batch norm."""
    return [
        Row(f"{released}.weight", "params", f"{ours}/scale", SAME),
        Row(f"{released}.bias", "params", f"{ours}/bias", SAME),
        Row(f"{released}.running_mean", "batch_stats", f"{ours}/mean", SAME),
        Row(f"{released}.running_var", "batch_stats", f"{ours}/var", SAME),
    ]


def _pair(layer: str, norm: str, ours: str, form: Form = CONVOLUTION) -> list[Row]:
    """Rows of a layer and its norm."""
    return _layer(layer, ours, form) + _norm(norm, f"{ours.removesuffix('_conv')}_bn")


def _sequence(released: str, ours: str, form: Form = CONVOLUTION) -> list[Row]:
    """Rows of a layer and its norm, which the released code puts into one sequence."""
    return _pair(f"{released}.0", f"{released}.1", ours, form)


def _resnet(stem: tuple[str, str], stages: Iterable[str]) -> list[Row]:
    """Rows of a ResNet, given the released names of its stem and its stages."""
    rows = _layer(stem[0], "trunk/conv1", CONVOLUTION) + _norm(stem[1], "trunk/bn1")
    for number, stage in enumerate(stages, 1):
        released, ours = f"{stage}.{{}}", f"trunk/layer{number}_block{{}}"
        rows += _layer(f"{released}.conv{{}}", f"{ours}/conv{{}}", CONVOLUTION)
        rows += _norm(f"{released}.bn{{}}", f"{ours}/bn{{}}")
        rows += _sequence(f"{released}.downsample", f"{ours}/downsample_conv")
    return rows


def _attention(released: str, ours: str) -> list[Row]:
    names = ("q", "k", "v", "proj")
    rows = (_layer(f"{released}.{name}", f"{ours}/{name}", LINEAR) for name in names)
    return sum(rows, [])


def _encoder(released: str, ours: str) -> list[Row]:
    """Rows of a layer of local feature self-attention."""
    return [
        *_attention(f"{released}.attn", f"{ours}/attn"),
        *_norm(f"{released}.bn", f"{ours}/bn"),
        *_layer(f"{released}.mlp", f"{ours}/mlp", LINEAR),
    ]


def _second_order(released: str, ours: str) -> list[Row]:
    return [
        *_sequence(f"{released}.f", f"{ours}/f_conv"),
        *_sequence(f"{released}.g", f"{ours}/g_conv"),
        *_layer(f"{released}.h", f"{ours}/h", CONVOLUTION),
        *_layer(f"{released}.v", f"{ours}/v", CONVOLUTION),
    ]


def _reduction(released: str) -> list[Row]:
    """Rows of a head's first layer and its last."""
    return [
        *_sequence(f"{released}.conv", "head/conv"),
        *_sequence(f"{released}.proj", "head/proj", LINEAR),
    ]


def _imagenet(released: str) -> list[Row]:
    return [
        Row(f"{released}.weight", "imagenet", "kernel", LINEAR),
        Row(f"{released}.bias", "imagenet", "bias", SAME),
    ]


_LABELS = Row("classifier.weight", "arcface", "weight", SAME)
_TRUNK = [
    # The released trunk counts the stem as block1.
    *_resnet(
        ("backbone.block1.0", "backbone.block1.1"),
        [f"backbone.block{stage}" for stage in range(2, 6)],
    ),
    *_second_order("backbone.soa4", "trunk/soa4"),
]
_WHITEN = _layer("whiten", "head/whiten", POINTWISE)
_TOKEN = [
    Row("tr.query", "params", "head/tokenizer/query", LEADING),
    *_layer("tr.token_norm.0", "head/tokenizer/linear", LINEAR),
    *_norm("tr.token_norm.1", "head/tokenizer/norm"),
    *_encoder("tr.encoder.{}", "head/encoder{}"),
    *_attention("tr.decoder.{}.self_attn", "head/decoder{}/self_attn"),
    *_attention("tr.decoder.{}.cross_attn", "head/decoder{}/cross_attn"),
    *_norm("tr.decoder.{}.bn{}", "head/decoder{}/norm{}"),
    *_layer("tr.decoder.{}.mlp.fc{}", "head/decoder{}/fc{}", LINEAR),
    *_reduction("tr"),
]
_NETVLAD = [
    Row("vlad.centroids", "params", "head/centroids", LEADING),
    *_encoder("vlad.encoder", "head/encoder0"),
    *_reduction("vlad"),
]
_DELG = [
    *_WHITEN,
    Row("classifier_block5.weight", "arcface", "weight", SAME),
    Row("classifier_block4.weight", "arcface_local", "weight", SAME),
    *_layer("attention.att_conv1", "local/attention", CONVOLUTION),
    *_layer("reduction", "local/reduction", CONVOLUTION),
]
_TORCHVISION = [
    *_resnet(("conv1", "bn1"), [f"layer{stage}" for stage in range(1, 5)]),
    *_imagenet("fc"),
]
_LITE0 = [
    *_pair("_conv_stem", "_bn0", "trunk/stem_conv"),
    *_pair("_blocks.{}._expand_conv", "_blocks.{}._bn0", "trunk/block{}/expand_conv"),
    *_pair(
        "_blocks.{}._depthwise_conv", "_blocks.{}._bn1", "trunk/block{}/depthwise_conv"
    ),
    *_pair("_blocks.{}._project_conv", "_blocks.{}._bn2", "trunk/block{}/project_conv"),
    *_pair("_conv_head", "_bn1", "trunk/head_conv"),
    *_imagenet("_fc"),
]
# By the file's origin; in each layout one of our paths has one released name.
LAYOUTS: dict[str, list[Row]] = {
    "token": [*_TRUNK, *_TOKEN, _LABELS],
    "gem": [*_TRUNK, *_WHITEN, _LABELS],
    "rmac": [*_TRUNK, *_WHITEN, _LABELS],
    "solar": [*_TRUNK, *_second_order("pooling", "head/soa"), *_WHITEN, _LABELS],
    "netvlad": [*_TRUNK, *_NETVLAD, _LABELS],
    "delg": [*_TRUNK, *_DELG],
    "torchvision": _TORCHVISION,
    "efficientnet_lite0": _LITE0,
}
