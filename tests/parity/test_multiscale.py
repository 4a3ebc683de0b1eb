import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.config.tree import ExtractionConfig
from tokret.convert.released import from_released
from tokret.data.views import View, thumbnail_size
from tokret.models.build import TRUNKS
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.embedding import make_embed_fn, rescale
from tokret.retrieval.extraction import extract

SCALES = (1.0, 2**0.5, 2**-0.5)


def test_resized_inputs(golden):
    arrays = np.load(golden("token_resnet50.npz"))
    image = arrays["resized1.0000"].transpose(0, 2, 3, 1)
    sizes = np.array([image.shape[1:3]])
    # Padding must not leak into the rescaled image.
    padded = np.pad(image, [(0, 0), (0, 31), (0, 7), (0, 0)], constant_values=9.0)
    for scale in SCALES[1:]:
        theirs = arrays[f"resized{scale:.4f}"].transpose(0, 2, 3, 1)
        ours = jax.jit(rescale, static_argnums=2)(padded, sizes, scale)
        ours = ours[:, : theirs.shape[1], : theirs.shape[2]]
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def test_thumbnail_sizes(golden):
    cases = json.loads(golden("thumbnail_sizes.json").read_text())
    assert cases
    for case in cases:
        found = thumbnail_size(tuple(case["cropped"]), float(case["bound"]))
        assert found == tuple(case["result"]), case


@pytest.mark.slow
def test_from_the_photo_file_to_the_descriptor(golden, draw):
    setup = json.loads(golden("photos.json").read_text())
    names = json.loads(golden("state_dict_names.json").read_text())
    converted = from_released(draw(names[setup["backbone"]]))
    variables = {
        collection: jax.tree.map(jnp.asarray, converted[collection])
        for collection in ("params", "batch_stats")
    }
    views = [
        View(
            golden("photos").joinpath(photo["photo"]).read_bytes(),
            photo["photo"],
            None if photo["box"] is None else tuple(photo["box"]),
            setup["longest_side"],
        )
        for photo in setup["photos"]
    ]
    for view, photo in zip(views, setup["photos"], strict=True):
        assert view.size() == tuple(reversed(photo["size_used"]))
    double = jnp.float64
    model = RetrievalNet(
        TRUNKS[setup["backbone"]](dtype=double), TokenHead(dtype=double)
    )
    descriptors = extract(
        make_embed_fn(model, SCALES),
        variables,
        views,
        settings=ExtractionConfig(
            longest_side=setup["longest_side"], scales=SCALES, batch_size=3, canvases=1
        ),
    )
    theirs = np.load(golden("photos.npz"))["descriptors"]
    # Not 1e-8: the released photos become float32 before they are normalised.
    np.testing.assert_allclose(descriptors, theirs, rtol=0, atol=2e-8)
