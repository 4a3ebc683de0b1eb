import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.convert.released import from_released
from tokret.models import TRUNKS
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.token import TokenHead


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


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["resnet50", "resnet101"])
def test_trunk_and_descriptor_at_three_sizes(golden, weights, trunk):
    arrays = np.load(golden(f"token_{trunk}.npz"))
    variables = cast(weights(trunk), jnp.float64)
    model = token(trunk, jnp.float64)
    images = [nhwc(arrays[f"image{i}"]) for i in range(3)]
    # One padded batch, so that one compilation serves three sizes: that padding
    # changes nothing is checked at the same stroke.
    sizes = np.array([image.shape[1:3] for image in images])
    height, width = sizes.max(axis=0)
    batch = np.zeros((3, height, width, 3))
    for i, image in enumerate(images):
        batch[i, : image.shape[1], : image.shape[2]] = image[0]
    apply = jax.jit(lambda v, x, s: model.apply(v, x, s, train=False))
    descriptors, taps = apply(variables, batch, sizes)
    for i in range(3):
        for stage in ("block1", "block5"):
            theirs = nhwc(arrays[f"{stage}_{i}"])[0]
            ours = taps[stage][i, : theirs.shape[0], : theirs.shape[1]]
            ours = ours[..., : theirs.shape[-1]]
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(
            taps["embedding"][i], arrays[f"head{i}"][0], rtol=1e-8, atol=1e-9
        )
        np.testing.assert_allclose(
            descriptors[i], arrays[f"descriptor{i}"][0], rtol=1e-8, atol=1e-10
        )


@pytest.mark.slow
def test_float32_and_bfloat16_stay_close(golden, weights):
    arrays = np.load(golden("token_resnet50.npz"))
    variables = cast(weights("resnet50"), jnp.float32)
    image = nhwc(arrays["image0"]).astype(np.float32)
    descriptors = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = token("resnet50", dtype)
        apply = jax.jit(lambda v, x, m=model: m.apply(v, x, train=False)[0])
        descriptors[dtype] = np.asarray(apply(variables, image))[0]
    np.testing.assert_allclose(
        descriptors[jnp.float32], arrays["descriptor0"][0], rtol=0, atol=1e-5
    )
    assert descriptors[jnp.bfloat16] @ descriptors[jnp.float32] > 0.999
