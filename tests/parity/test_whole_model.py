import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.convert.released import from_released
from tokret.models.build import TRUNKS
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.embedding import rescale

SCALES = (2**0.5, 2**-0.5)


def cast(variables, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)


def nhwc(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def token(trunk, dtype):
    return RetrievalNet(TRUNKS[trunk](dtype=dtype), TokenHead(dtype=dtype))


@pytest.fixture(scope="module")
def weights(golden, draw):
    names = json.loads(golden("state_dict_names.json").read_text())

    def variables(trunk):
        converted = from_released(draw(names[trunk]))
        return {key: converted[key] for key in ("params", "batch_stats")}

    return variables


@pytest.fixture(scope="module", params=["resnet50", "resnet101"])
def case(request, golden, weights):
    """A trunk's name, golden arrays and weights, and one batch of all it looks at.

    Three images, each at three scales, padded to one canvas: one compilation serves
    all, and that padding changes nothing is checked at the same stroke.
    """
    arrays = np.load(golden(f"token_{request.param}.npz"))
    with jax.enable_x64(True):
        views = []
        for i in range(3):
            image = jnp.asarray(nhwc(arrays[f"image{i}"]))
            size = jnp.array([image.shape[1:3]])
            views += [image[0]]
            views += [np.asarray(rescale(image, size, scale))[0] for scale in SCALES]
    sizes = np.array([view.shape[:2] for view in views])
    batch = np.zeros((len(views), *sizes.max(axis=0), 3))
    for row, view in zip(batch, views, strict=True):
        row[: view.shape[0], : view.shape[1]] = view
    return request.param, arrays, weights(request.param), batch, sizes


def run(trunk, variables, batch, sizes, dtype):
    model = token(trunk, dtype)
    apply = jax.jit(lambda v, x, s: model.apply(v, x, s, train=False))
    kept = jnp.promote_types(dtype, jnp.float32)
    return apply(cast(variables, kept), jnp.asarray(batch, kept), sizes)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.slow
def test_stages_and_descriptors_at_three_sizes_and_scales(case):
    trunk, arrays, variables, batch, sizes = case
    descriptors, taps = run(trunk, variables, batch, sizes, jnp.float64)
    for i in range(3):
        at = 3 * i  # the image itself; its two other scales follow
        for stage in ("block1", "block5"):
            theirs = nhwc(arrays[f"{stage}_{i}"])[0]
            ours = taps[stage][at, : theirs.shape[0], : theirs.shape[1]]
            ours = ours[..., : theirs.shape[-1]]
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)
        close = {"rtol": 1e-8, "atol": 1e-10}
        embedding = taps["embedding"][at]
        np.testing.assert_allclose(embedding, arrays[f"head{i}"][0], **close)
        theirs = arrays[f"descriptor{i}"][0]
        np.testing.assert_allclose(descriptors[at], theirs, **close)
        scales = descriptors[at : at + 3]
        np.testing.assert_allclose(scales, arrays[f"scales{i}"], **close)
        mean = unit(np.mean(scales, axis=0))
        np.testing.assert_allclose(mean, arrays[f"multiscale{i}"], **close)


@pytest.mark.slow
def test_float32_and_bfloat16_stay_close(case):
    trunk, arrays, variables, batch, sizes = case
    single, _ = run(trunk, variables, batch, sizes, jnp.float32)
    theirs = np.concatenate([arrays[f"scales{i}"] for i in range(3)])
    np.testing.assert_allclose(single, theirs, rtol=0, atol=1e-5)
    if trunk == "resnet101":
        return  # another compilation would add no information
    half, _ = run(trunk, variables, batch, sizes, jnp.bfloat16)
    half, single = (np.asarray(x, np.float64).reshape(3, 3, -1) for x in (half, single))
    both = unit(half.mean(axis=1)) * unit(single.mean(axis=1))
    assert both.sum(axis=-1).min() > 0.999
    # At a single scale of so small an image a token may gather next to nothing; its
    # layer norm then magnifies the trunk's rounding (0.9976 at worst here).
    assert np.sum(half * single, axis=-1).min() > 0.997
