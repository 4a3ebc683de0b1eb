import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.models.build import build_model
from tokret.retrieval.report.token_maps import (
    has_token_maps,
    make_token_mapper,
    overlay,
)
from tokret.retrieval.report.token_picture import (
    TokenRow,
    shaded,
    token_picture,
    token_rows,
)

SETTINGS = ExtractionConfig(longest_side=96, scales=(1.0,), batch_size=2, canvases=1)


def maps_by(head, views, **options):
    model = build_model(trunk="tiny", head=head, dtype="float32", dim=8, **options)
    images = jnp.zeros((1, 32, 32, 3))
    key = jax.random.key(0)
    variables = jax.jit(lambda key: model.init(key, images, train=False))(key)
    return make_token_mapper(model, variables, SETTINGS)(views), model, variables


def views_of(*sizes):
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        yield View(buffer.getvalue(), f"{number}.png", None, 96)


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "token", "tokens": 2, "width": 16, "num_heads": 2},
        {"head": "netvlad", "clusters": 4, "num_heads": 2},
        {"head": "gem"},
    ],
)
def test_the_fields_of_a_model_show_whether_it_has_maps(fields):
    model = build_model(trunk="tiny", dtype="float32", dim=8, **fields)
    images = jnp.zeros((1, 32, 32, 3))
    _, (_, found) = jax.eval_shape(
        lambda key: (
            variables := model.init(key, images, train=False),
            model.apply(variables, images, train=False),
        ),
        jax.random.key(0),
    )
    assert has_token_maps(fields) == ("attention" in found)


@pytest.mark.slow
def test_maps_are_those_of_the_photo_alone():
    views = list(views_of((96, 64), (40, 90), (64, 64)))
    options = {"tokens": 3, "width": 16, "num_heads": 2}
    options |= {"attention_layers": 0, "refinement_layers": 0}
    found, model, variables = maps_by("token", views, **options)
    for view, maps in zip(views, found, strict=True):
        pixels = view.pixels()[None].astype(np.float32) / 255
        scale = model.pixels
        mean, deviation = np.array(scale.mean), np.array(scale.std)
        images = jnp.asarray((pixels - mean) / deviation, jnp.float32)
        alone = model.apply(variables, images, train=False)[1]["attention"][0]
        np.testing.assert_allclose(maps, alone, atol=1e-4)
        np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-5)


def test_heads_without_maps():
    assert maps_by("gem", list(views_of((64, 64))), p=3.0, whiten=False)[0] is None


def test_an_overlay_is_transparent_where_a_map_is_one():
    map_ = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    with Image.open(io.BytesIO(overlay(map_))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels.shape == (3, 4, 4) and not pixels[..., :3].any()
    alpha = pixels[..., 3].ravel().astype(int)
    assert (np.diff(alpha) < 0).all() and alpha[-1] == 0


def test_the_picture_shows_photos_beside_what_tokens_see(
    tmp_path, landmarks, token_maps
):
    rows = token_rows(landmarks, [0, 3], token_maps)
    words = [row.caption for row in rows]
    assert words[0] == f"query, AP {100 * landmarks.precision[0]:.1f}"
    assert words[1].startswith("its first: ") and len(rows) == 4
    bright = shaded(rows[0].image, np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(bright, rows[0].image)
    dark = shaded(rows[0].image, np.zeros((2, 2), np.float32))
    assert dark.mean() < 0.25 * bright.mean()
    token_picture(rows, tmp_path / "tokens.png")
    with Image.open(tmp_path / "tokens.png") as picture:
        assert picture.format == "PNG" and picture.height > picture.width / 2
    assert token_rows(landmarks, [0], lambda views: None) == []
    assert isinstance(rows[0], TokenRow)
