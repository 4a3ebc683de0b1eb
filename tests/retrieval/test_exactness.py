"""Photos of many shapes in batches against each of them alone, for every aggregation.

Alone means: trunk and rescaling in NumPy's float64, on arrays of the photo's own size;
then the heads without any padding. The long form (TOKRET_LONG=1) takes 200 photos of 40
shapes and runs the batches in float64 too.
"""

import io
from collections import defaultdict
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.models.build import HEADS
from tokret.models.layers import l2_normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.efficientnet import BlockGroup, EfficientNetLite
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.retrieval.embedding import make_embed_fn
from tokret.retrieval.extraction import extract

SCALES = (1.0, 2**0.5, 2**-0.5)
DIM = 8
TOKEN = {"dim": DIM, "width": 8, "num_heads": 2, "tokens": 3}
EVERY = {
    "token": TOKEN,
    "token of the paper": TOKEN | {"tokenizer": "paper", "refinement": "paper"},
    "gem": {"dim": DIM},
    "rmac": {"dim": DIM},
    "netvlad": {"dim": DIM, "num_heads": 2, "clusters": 3},
    "solar": {"dim": DIM},
    "delg": {"dim": DIM},
}
GROUPS = (
    BlockGroup(1, 3, 1, 1, 4),
    BlockGroup(2, 3, 2, 2, 6),
    BlockGroup(1, 5, 2, 2, 8),
    BlockGroup(1, 3, 2, 2, 8),
)
TRUNKS = {
    "resnet": lambda dtype: ResNet(
        blocks=(1, 1, 1), block=BasicBlock, width=4, dtype=dtype
    ),
    "efficientnet": lambda dtype: EfficientNetLite(
        groups=GROUPS, stem=4, head=12, dtype=dtype
    ),
}


class Together(nn.Module):
    """All heads on one trunk, so that this is computed once: descriptors in a row."""

    names: tuple[str, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features, sizes=None, *, train):
        found = [
            HEADS[name.split()[0]](**EVERY[name], dtype=self.dtype, name=name)(
                features, sizes, train=train
            )[0]
            for name in self.names
        ]
        return jnp.concatenate([l2_normalise(x) for x in found], axis=-1), {}


def shapes_of_photos(long):
    """40 shapes, or 14, of sides of either parity but of few shapes of features."""
    rng = np.random.default_rng(0)
    small, large = range(35, 46), range(69, 80)
    shapes: set[tuple[int, int]] = set()
    kinds = (((small, large), 14), ((large, small), 28), ((small,) * 2, 40))
    for pair, count in kinds if long else kinds[:1]:
        while len(shapes) < count:
            height, width = (int(rng.choice(sides)) for sides in pair)
            shapes.add((height, width))
    return sorted(shapes)


def photos(long):
    rng = np.random.default_rng(1)
    shapes = shapes_of_photos(long)
    views = []
    for i in range(200 if long else 70):
        shape = shapes[i % len(shapes)]
        coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
        pixels = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        views.append(View(buffer.getvalue(), f"{i}", None, 80))
    return views


# --- One photo alone, in NumPy.


def rescaled(image, scale):
    """PyTorch's bilinear interpolation with a given factor, edges repeated."""
    for axis in (0, 1):
        side = image.shape[axis]
        place = (np.arange(int(np.floor(side * scale))) + 0.5) / scale - 0.5
        place = np.maximum(place, 0)
        low = np.minimum(np.floor(place).astype(int), side - 1)
        high = np.minimum(low + 1, side - 1)
        part = (place - np.floor(place)).reshape([(-1, 1, 1), (-1, 1)][axis])
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def convolved(x, kernel, stride, pads):
    """[h, w, c] by [k, k, i, o], or [k, k, 1, c] for each channel alone."""
    side = kernel.shape[0]
    windows = sliding_window_view(np.pad(x, [*pads, (0, 0)]), (side, side), (0, 1))
    windows = windows[::stride, ::stride]  # [h2, w2, c, k, k]
    if kernel.shape[2] == 1 and x.shape[-1] > 1:
        return np.einsum("hwckl,klc->hwc", windows, kernel[:, :, 0])
    return np.tensordot(windows, kernel, ((3, 4, 2), (0, 1, 2)))


class Alone:
    """The trunks' layers for one photo, by the names of their variables."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def at(self, tree, path):
        for name in path.split("/"):
            tree = tree[name]
        return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}

    def norm(self, x, path, epsilon):
        learned, kept = self.at(self.params, path), self.at(self.stats, path)
        x = (x - kept["mean"]) / np.sqrt(kept["var"] + epsilon)
        return x * learned["scale"] + learned["bias"]

    def torch(self, x, path, stride=1):
        kernel = self.at(self.params, path)["kernel"]
        return convolved(x, kernel, stride, [(kernel.shape[0] // 2,) * 2] * 2)

    def same(self, x, path, stride=1):
        kernel = self.at(self.params, path)["kernel"]
        total = [
            max((-(-n // stride) - 1) * stride + kernel.shape[0] - n, 0)
            for n in x.shape[:2]
        ]
        return convolved(x, kernel, stride, [(n // 2, n - n // 2) for n in total])

    def resnet(self, x):
        x = np.maximum(self.norm(self.torch(x, "conv1", 2), "bn1", 1e-5), 0)
        padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
        x = sliding_window_view(padded, (3, 3), (0, 1))[::2, ::2].max((3, 4))
        for stage in (1, 2, 3):
            path, stride = f"layer{stage}_block0", 1 + (stage > 1)
            y = self.torch(x, f"{path}/conv1", stride)
            y = np.maximum(self.norm(y, f"{path}/bn1", 1e-5), 0)
            y = self.norm(self.torch(y, f"{path}/conv2"), f"{path}/bn2", 1e-5)
            if stride == 2:
                x = self.torch(x, f"{path}/downsample_conv", 2)
                x = self.norm(x, f"{path}/downsample_bn", 1e-5)
            x = np.maximum(x + y, 0)
        return x

    def efficientnet(self, x):
        def step(x, path, stride=1):
            return self.norm(self.same(x, f"{path}_conv", stride), f"{path}_bn", 1e-3)

        x = np.clip(step(x, "stem", 2), 0, 6)
        strides = [g.stride if i == 0 else 1 for g in GROUPS for i in range(g.repeats)]
        for i, stride in enumerate(strides):
            y = x
            if "expand_conv" in self.params[f"block{i}"]:
                y = np.clip(step(y, f"block{i}/expand"), 0, 6)
            y = np.clip(step(y, f"block{i}/depthwise", stride), 0, 6)
            y = step(y, f"block{i}/project")
            x = x + y if stride == 1 and x.shape == y.shape else y
        return np.clip(step(x, "head"), 0, 6)


def alone(trunk, scale_of_pixels, head, variables, views):
    """Every head's descriptors, [n, heads, d]; photos of one feature shape at once."""
    layers = Alone({name: variables[name]["trunk"] for name in variables})
    mean, deviation = (np.array(x, np.float64) for x in scale_of_pixels)
    groups = defaultdict(list)
    for row, view in enumerate(views):
        image = (view.pixels() / 255.0 - mean) / deviation
        for scale in SCALES:
            seen = image if scale == 1 else rescaled(image, scale)
            features = getattr(layers, trunk)(seen)
            groups[features.shape].append((row, features))
    own = {name: variables[name].get("head", {}) for name in variables}
    run = jax.jit(lambda x: head.apply(own, x, train=False)[0])
    total: Any = np.zeros((len(views), len(head.names), DIM))
    for members in groups.values():
        rows, features = zip(*members, strict=True)
        found = np.asarray(run(np.stack(features)))
        np.add.at(total, list(rows), found.reshape(len(rows), -1, DIM))
    return total / np.linalg.norm(total, axis=2, keepdims=True)


# --- Batches, and the comparison.


def drawn(model):
    """Weights at random: zeros and ones, as training begins with, would hide much."""
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        name, noise = path[-1].key, rng.normal(size=leaf.shape)
        if name in ("scale", "var"):
            noise = np.exp(0.3 * noise)
        elif leaf.ndim > 1 and path[1].key == "trunk":
            noise *= (2 / np.prod(leaf.shape[:-1])) ** 0.5
        else:  # small: sharp softmaxes would multiply what float32 rounds
            noise *= 0.2
        return jnp.asarray(noise, jnp.float32)

    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32),
    )
    return jax.tree_util.tree_map_with_path(draw, shapes)


def batched(model, variables, views, canvases):
    settings = ExtractionConfig(
        longest_side=80, scales=SCALES, batch_size=16, canvases=canvases
    )
    embed = make_embed_fn(model, SCALES)
    found = extract(embed, variables, views, settings)
    programs = embed._cache_size()  # type: ignore[attr-defined]
    assert 1 <= programs <= canvases
    found = found.reshape(len(views), -1, DIM).astype(np.float64)
    return found / np.linalg.norm(found, axis=2, keepdims=True), programs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trunk", "names"), [("resnet", tuple(EVERY)), ("efficientnet", ("gem",))]
)
def test_batches_of_any_shapes_give_what_each_photo_gives_alone(trunk, names, long):
    views = photos(long)
    single = RetrievalNet(TRUNKS[trunk](jnp.float32), Together(names))
    variables = drawn(single)
    found, programs = {}, {}
    with jax.enable_x64(True):
        head = Together(names, dtype=jnp.float64)
        double = RetrievalNet(TRUNKS[trunk](jnp.float64), head)
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        expected = alone(trunk, double.pixels, head, wide, views)
        if long:
            found[1e-9], programs[1e-9] = batched(double, wide, views, canvases=1)
    found[1e-5], programs[1e-5] = batched(single, variables, views, canvases=2)
    assert sum(programs.values()) <= 12
    # The photos are not all alike: what is compared could differ.
    assert (np.ptp(expected, axis=0).max(axis=1) > 0.05).all()
    for limit, descriptors in found.items():
        difference = np.abs(descriptors - expected).max(axis=(0, 2))
        assert (difference <= limit).all(), dict(zip(names, difference, strict=True))
