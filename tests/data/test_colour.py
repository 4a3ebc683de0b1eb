import colorsys
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.pillow_views import ENHANCERS, turn_hue, vary_colours
from tokret.benchmark.noise_photos import noise_photo
from tokret.data import colour

FEW = settings(derandomize=True, deadline=None, max_examples=60)
SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.floats(0, 2)
TURNS = st.floats(-0.5, 0.5)


def noise(height=37, width=53, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def natural(seed=0):
    encoded = noise_photo(seed, 240, 320)
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


def away(ours, theirs):
    return np.abs(ours.astype(int) - np.asarray(theirs)).max(axis=-1)


def applied(name, factor, image):
    return colour.vary(image.copy(), [(name, factor)])


@FEW
@given(SIDES, SIDES, SEEDS, FACTORS)
def test_linear_changes_are_pillows(height, width, seed, factor):
    image = noise(height, width, seed)
    pillow = Image.fromarray(image)
    for name, enhancer in ENHANCERS.items():
        expected = enhancer(pillow).enhance(factor)
        assert away(applied(name, factor, image), expected).max() <= 1, name


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.37, 2.0])
def test_linear_changes_of_many_colours(factor):
    image = noise(500, 600)
    pillow = Image.fromarray(image)
    for name, enhancer in ENHANCERS.items():
        expected = enhancer(pillow).enhance(factor)
        found = away(applied(name, factor, image), expected)
        assert found.max() <= 1
        # Only saturation rounds Pillow's grey level of every pixel otherwise.
        assert name == "saturation" or found.mean() < 0.05


def on_a_border(pixels):
    """Whether a colour is exactly between two of Pillow's steps of hue."""
    lowest, middle, highest = np.sort(pixels.astype(int), axis=-1).T
    chroma, middle = highest - lowest, middle - lowest
    return (chroma > 0) & (85 * middle % np.maximum(2 * chroma, 1) == 0)


@pytest.mark.parametrize("turn", [-0.5, -0.1, -0.004, 0.0, 0.03, 0.1, 0.27, 0.5])
def test_hue_of_many_colours(turn):
    image = noise(500, 600)
    found = colour.adjust_hue(image, turn)
    wrong = away(found, turn_hue(Image.fromarray(image), turn)) > 1
    # One in 500, by one step of hue, and only where Pillow's floats decide.
    assert wrong.mean() < 0.0025
    assert on_a_border(image[wrong]).all()
    assert away(found, turn_hue(Image.fromarray(image), turn)).max() <= 7


@FEW
@given(SIDES, SIDES, SEEDS, TURNS)
def test_hue_of_noise(height, width, seed, turn):
    image = noise(height, width, seed)
    expected = turn_hue(Image.fromarray(image), turn)
    wrong = away(colour.adjust_hue(image, turn), expected) > 1
    assert on_a_border(image[wrong]).all()


def test_hue_of_what_looks_like_photos():
    image = np.concatenate([natural(seed) for seed in range(4)])
    for turn in (-0.1, -0.03, 0.06, 0.1):
        wrong = away(
            colour.adjust_hue(image, turn), turn_hue(Image.fromarray(image), turn)
        )
        assert (wrong > 1).mean() < 0.005


def test_hue_turns_the_circle():
    red = np.full((1, 1, 3), (200, 40, 40), np.uint8)
    turned = colour.adjust_hue(red, 1 / 3)[0, 0] / 255
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(1 / 3, abs=0.01)
    np.testing.assert_allclose(colour.adjust_hue(red, 0.0), red, atol=2)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_grey_has_no_hue(level):
    grey = np.full((5, 7, 3), level, np.uint8)
    np.testing.assert_array_equal(colour.adjust_hue(grey, 0.3), grey)


def test_hue_does_not_change_its_input_by_default():
    image = noise()
    before = image.copy()
    found = colour.adjust_hue(image, 0.1)
    np.testing.assert_array_equal(image, before)
    assert colour.adjust_hue(image, 0.1, out=image) is image
    np.testing.assert_array_equal(image, found)


def test_threads_have_their_own_planes():
    images = [noise(60, 80 + seed % 3, seed) for seed in range(40)]
    expected = [colour.adjust_hue(image, 0.07) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: colour.adjust_hue(image, 0.07), images))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@FEW
@given(st.lists(FACTORS, min_size=3, max_size=3), st.permutations(range(3)), SEEDS)
def test_changes_one_after_the_other(factors, order, seed):
    names = ("brightness", "contrast", "saturation")
    changes = [(names[i], factors[i]) for i in order]
    image = natural(seed % 5)
    expected = vary_colours(Image.fromarray(image), changes)
    found = away(colour.vary(image.copy(), changes), expected)
    # A level of each change, enlarged by the factors after it, and one of rounding.
    second, third = factors[order[1]], factors[order[2]]
    assert found.max() <= 2 + third * (1 + second)


def test_all_four_changes_in_any_order():
    rng = np.random.default_rng(0)
    image = natural()
    for _ in range(12):
        changes = [(name, rng.uniform(0.6, 1.4)) for name in ENHANCERS]
        changes.append(("hue", rng.uniform(-0.1, 0.1)))
        changes = [changes[i] for i in rng.permutation(4)]
        expected = np.asarray(vary_colours(Image.fromarray(image), changes))
        found = colour.vary(image.copy(), changes)
        assert np.abs(found.astype(int) - expected).mean() < 0.8
