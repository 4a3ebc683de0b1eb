import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.errors import UserError
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.retrieval.embedding import batch_shardings, interpolation, make_embed_fn
from tokret.retrieval.extraction import extract

SCALES = (1.0, 2**0.5, 2**-0.5)
SHAPES = [(40, 60), (60, 40), (33, 50), (64, 64), (21, 64)]


def views(shapes):
    rng = np.random.default_rng(0)
    found = []
    for height, width in shapes:
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(View(buffer.getvalue(), f"{height}x{width}", None, 64))
    return found


@pytest.fixture(scope="module")
def model():
    trunk = ResNet(blocks=(1, 1), block=BasicBlock, width=4)
    model = RetrievalNet(trunk, TokenHead(dim=8, width=8, num_heads=2, tokens=2))
    init = jax.jit(lambda images: model.init(jax.random.key(0), images, train=False))
    return make_embed_fn(model, SCALES), init(jnp.zeros((1, 64, 64, 3)))


def settings_of(batch_size, canvases):
    return ExtractionConfig(
        longest_side=64, scales=SCALES, batch_size=batch_size, canvases=canvases
    )


def test_batches_of_any_shapes_equal_one_at_a_time(model):
    embed, variables = model
    photos = views(SHAPES)
    done = []
    together = extract(
        embed,
        variables,
        photos,
        settings=settings_of(2, 1),
        progress=done.append,
    )
    assert together.shape == (5, 8) and sum(done) == 5
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    compiled = embed._cache_size()
    assert compiled == 1
    several = extract(embed, variables, photos, settings=settings_of(2, 2))
    np.testing.assert_allclose(several, together, atol=1e-5)
    assert embed._cache_size() <= compiled + 2
    alone = extract(embed, variables, photos[2:3], settings=settings_of(1, 1))
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)


@pytest.mark.parametrize("platform", [None, "tpu"])
def test_compiler_options_are_those_of_the_platform(monkeypatch, platform):
    options = {None: {"xla_no_such_option": True}, "tpu": {}}
    monkeypatch.setattr(
        "tokret.retrieval.embedding.inference_options",
        lambda dtype, platform: options[platform],
    )
    trunk = ResNet(blocks=(1, 1), block=BasicBlock, width=4)
    model = RetrievalNet(trunk, TokenHead(dim=8, width=8, num_heads=2, tokens=2))
    images = np.zeros((1, 64, 64, 3), np.uint8)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros(images.shape), train=False)
    )
    sizes = np.full((1, 2), 64, np.int32)
    lowered = make_embed_fn(model, (1.0,), platform).lower(  # type: ignore[attr-defined]
        variables, images, sizes, sizes[None]
    )
    if platform:
        lowered.compile()
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
            lowered.compile()


def test_a_batch_is_split_over_all_devices_and_stays_the_same(model):
    embed, variables = model
    photos, used = views(SHAPES), []

    def noted(variables, images, sizes, rescaled):
        used.append((images.sharding.device_set, images.shape))
        return embed(variables, images, sizes, rescaled)

    split = extract(noted, variables, photos, settings=settings_of(8, 1))
    ((devices, shape),) = used
    assert devices == set(jax.devices()) and shape[0] == len(devices) == 8
    one = extract(embed, variables, photos, settings=settings_of(1, 1))
    np.testing.assert_allclose(split, one, atol=2e-6)


@pytest.mark.parametrize(("batch", "used"), [(8, 8), (12, 6), (7, 7), (1, 1), (20, 5)])
def test_as_many_devices_as_divide_a_batch(batch, used):
    for place in batch_shardings(batch, jax.devices()):
        assert len(place.device_set) == used


def test_interpolation_at_the_edges():
    matrix = np.asarray(interpolation(jnp.array([3]), 5, 6, 2.0))[0]
    line = np.array([0.0, 10.0, 20.0, 99.0, 99.0])  # the last two are padding
    np.testing.assert_allclose(matrix @ line, [0, 2.5, 7.5, 12.5, 17.5, 20], rtol=1e-6)


def test_a_descriptor_that_is_not_finite_is_refused(model):
    def embed(variables, batch, sizes, rescaled):
        found = np.ones((len(batch), 2), np.float32)
        found[sizes[:, 0] == 33] = np.nan
        return found

    with pytest.raises(UserError, match="of 33x40 is not finite: the weights"):
        extract(embed, {}, views([(32, 32), (33, 40), (32, 32)]), settings_of(2, 1))
