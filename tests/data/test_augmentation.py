import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tokret.data import augmentation as aug

FEW = settings(derandomize=True, deadline=None, max_examples=60)


def photo(height=37, width=53, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@FEW
@given(st.integers(1, 60), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_crops_lie_inside_and_keep_their_promises(height, width, seed):
    rng = np.random.default_rng(seed)
    top, left, h, w = aug.random_crop((height, width), 0.2, rng)
    assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    if min(height, width) > 20 and max(height, width) < 40:
        assert 0.15 < h * w / (height * width) <= 1
        assert 0.7 < w / h < 1.45


def test_crops_are_spread_as_torchvision_draws_them():
    rng = np.random.default_rng(0)
    crops = np.array([aug.random_crop((400, 400), 0.2, rng) for _ in range(4000)])
    area = crops[:, 2] * crops[:, 3] / 400**2
    aspect = np.log(crops[:, 3] / crops[:, 2])
    # Uniform area, less what does not fit at wide aspects; log-uniform aspect.
    assert 0.2 <= area.min() < 0.21 and 0.95 < area.max() <= 1
    assert abs(aspect.mean()) < 0.01
    assert abs(aspect.std() - 2 * np.log(4 / 3) / 12**0.5) < 0.02


def test_the_generator_alone_decides():
    vary = aug.Augmentation(size=24)
    views = [vary(photo(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert views[0].shape == (24, 24, 3) and views[0].dtype == np.uint8
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()


def test_nothing_varies_when_nothing_is_asked_to():
    still = aug.Augmentation(size=37, min_area=1.0, flip=0.0, jitter=0.0)
    square = photo(37, 37)
    # A crop of the whole area with another aspect does not fit; ten of them fail.
    view = still(square, np.random.default_rng(3))
    assert np.abs(view.astype(int) - square).mean() < 30
    flipped = aug.Augmentation(size=37, min_area=1.0, flip=1.0, jitter=0.0)
    mirrored = flipped(square, np.random.default_rng(3))
    assert (mirrored == view[:, ::-1]).mean() > 0.99


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.37])
def test_colours_change_as_pillow_changes_them(factor):
    image = photo()
    pillow = Image.fromarray(image)
    for ours, theirs in (
        (aug.adjust_brightness, ImageEnhance.Brightness),
        (aug.adjust_contrast, ImageEnhance.Contrast),
        (aug.adjust_saturation, ImageEnhance.Color),
    ):
        expected = np.asarray(theirs(pillow).enhance(factor)).astype(int)
        # One grey level of rounding, and one of Pillow's cutting off instead.
        assert np.abs(ours(image, factor).astype(int) - expected).max() <= 2


def test_hue_turns_the_circle():
    red = np.full((1, 1, 3), (200, 40, 40), np.uint8)
    turned = aug.adjust_hue(red, 1 / 3)[0, 0] / 255
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(1 / 3, abs=0.01)
    np.testing.assert_allclose(aug.adjust_hue(red, 0.0), red, atol=2)


def test_validation_sees_seven_eighths_of_the_shorter_side():
    image = np.zeros((64, 96, 3), np.uint8)
    image[4:60, 20:76] = 255  # the central square of 56
    assert (aug.centre_crop(image, 28) == 255).all()
    assert aug.centre_crop(image, 28).shape == (28, 28, 3)
