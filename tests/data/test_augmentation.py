import io
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.pillow_views import make_view as pillow_view
from tokret.benchmark.noise_photos import noise_photo
from tokret.data import augmentation as aug
from tokret.data.decoding import decode_fast, read_header

FEW = settings(derandomize=True, deadline=None, max_examples=60)
DRAWS = 4000


def photo(height=37, width=53, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@FEW
@given(st.integers(1, 60), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_crops_are_inside_and_as_documented(height, width, seed):
    rng = np.random.default_rng(seed)
    top, left, h, w = aug.random_crop((height, width), 0.2, rng)
    assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    if min(height, width) > 20 and max(height, width) < 40:
        assert 0.15 < h * w / (height * width) <= 1
        assert 0.7 < w / h < 1.45


def torchvision_central(shape):
    """What RandomResizedCrop.get_params falls back to."""
    h, w = height, width = shape
    if width / height < 3 / 4:
        h = round(w / (3 / 4))
    elif width / height > 4 / 3:
        w = round(h * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def torchvision_crops(shape, count, rng):
    """RandomResizedCrop.get_params, from torchvision's documentation and source."""
    height, width = shape
    crops = []
    while len(crops) < count:
        for _ in range(10):
            target = height * width * rng.uniform(0.2, 1.0)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = rng.integers(0, height - h, endpoint=True)
                left = rng.integers(0, width - w, endpoint=True)
                break
        else:
            top, left, h, w = torchvision_central(shape)
        crops.append((top, left, h, w))
    return np.array(crops)


def measures(crops, shape):
    """Area, aspect and position (as a fraction of what is possible) of crops."""
    top, left, h, w = crops.T
    return {
        "area": h * w / math.prod(shape),
        "aspect": np.log(w / h),
        "top": (top + 0.5) / (shape[0] - h + 1),
        "left": (left + 0.5) / (shape[1] - w + 1),
    }


def kolmogorov_smirnov(a, b):
    """The largest difference of two distributions, over its 1 % level."""
    values = np.concatenate([a, b])
    ranks = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (a, b)]
    level = 1.63 * math.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return np.abs(ranks[0] - ranks[1]).max() / level


@pytest.mark.parametrize("shape", [(768, 1024), (900, 600), (400, 400), (300, 1200)])
def test_crops_are_spread_as_torchvision_draws_them(shape):
    rng = np.random.default_rng(0)
    ours = np.array([aug.random_crop(shape, 0.2, rng) for _ in range(DRAWS)])
    theirs = torchvision_crops(shape, 2 * DRAWS, np.random.default_rng(1))
    found, expected = measures(ours, shape), measures(theirs, shape)
    for name in found:
        assert kolmogorov_smirnov(found[name], expected[name]) < 1, name


@FEW
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_what_no_crop_fits_into_is_cut_in_its_middle(height, width):
    found = aug.central_crop((height, width))
    # Where torchvision would cut out nothing at all, one row or column stays.
    expected = np.maximum(torchvision_central((height, width)), (0, 0, 1, 1))
    np.testing.assert_array_equal(found, expected)


def test_ten_crops_are_tried():
    # All of such a photo never has a permitted aspect.
    crops = {
        aug.random_crop((10, 1000), 1.0, np.random.default_rng(seed))
        for seed in range(20)
    }
    assert crops == {aug.central_crop((10, 1000))}


def test_changes_are_spread_as_torchvision_draws_them():
    rng = np.random.default_rng(0)
    vary = aug.Augmentation()
    drawn = [vary.draw((100, 100), rng) for _ in range(2 * DRAWS)]
    assert abs(np.mean([d.flip for d in drawn]) - 0.5) < 0.02
    changes = [d.changes for d in drawn if d.changes]
    assert abs(len(changes) / len(drawn) - 0.8) < 0.02
    ranges = {
        "brightness": (0.6, 1.4),
        "contrast": (0.6, 1.4),
        "saturation": (0.8, 1.2),
        "hue": (-0.1, 0.1),
    }
    for name, (low, high) in ranges.items():
        amounts = np.array([dict(c)[name] for c in changes])
        uniform = np.linspace(low, high, len(amounts))
        assert kolmogorov_smirnov(amounts, uniform) < 1, name
        assert low <= amounts.min() and amounts.max() <= high
    orders, counts = np.unique(
        [[name for name, _ in c] for c in changes], axis=0, return_counts=True
    )
    assert len(orders) == 24
    # Chi-squared of 23 degrees of freedom: 41.6 at 1 %.
    mean = len(changes) / 24
    assert ((counts - mean) ** 2 / mean).sum() < 41.6


def test_a_range_of_zero_is_no_change():
    still = aug.Augmentation(jitter=1.0, contrast=0.0, hue=0.0)
    names = {name for name, _ in still.draw_changes(np.random.default_rng(0))}
    assert names == {"brightness", "saturation"}
    wide = aug.Augmentation(brightness=3.0)
    rng = np.random.default_rng(0)
    factors = [dict(wide.draw_changes(rng))["brightness"] for _ in range(200)]
    assert 0 <= min(factors) < 0.2 and 3.8 < max(factors) <= 4


def test_the_generator_alone_decides():
    vary = aug.Augmentation(size=24)
    views = [vary(photo(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert views[0].shape == (24, 24, 3) and views[0].dtype == np.uint8
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()


def test_threads_make_the_same_views():
    vary = aug.Augmentation(size=32)
    photos = [noise_photo(seed, 60 + 9 * seed, 90) for seed in range(3)]

    def view(seed):
        rng = np.random.default_rng(seed)
        return vary.view(photos[seed % 3], f"photo {seed}", rng)

    alone = [view(seed) for seed in range(36)]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(view, range(36)))
    np.testing.assert_array_equal(alone, together)


OTHER_PROCESS = """
import hashlib
import cv2
import numpy as np
from tokret.benchmark.noise_photos import noise_photo
from tokret.data.augmentation import Augmentation

cv2.setNumThreads({threads})
vary, photo = Augmentation(size=128), noise_photo(0, 400, 700)
views = [vary.view(photo, "a", np.random.default_rng(seed)) for seed in range(8)]
print(hashlib.sha256(np.stack(views).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_processes_and_opencvs_threads_make_the_same_views():
    messages = {
        subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS.format(threads=threads)],
            check=True,
            capture_output=True,
        ).stdout
        for threads in (0, 1, 3)
    }
    assert len(messages) == 1


def test_a_photo_is_left_alone():
    image = photo(40, 40)
    before = image.copy()
    for seed in range(20):
        aug.Augmentation(size=40, min_area=1.0)(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)


def test_nothing_varies_when_all_ranges_are_zero():
    still = aug.Augmentation(size=37, min_area=1.0, flip=0.0, jitter=0.0)
    square = photo(37, 37)
    # A crop of the whole area with another aspect does not fit; ten of them fail.
    view = still(square, np.random.default_rng(3))
    assert np.abs(view.astype(int) - square).mean() < 30
    flipped = aug.Augmentation(size=37, min_area=1.0, flip=1.0, jitter=0.0)
    mirrored = flipped(square, np.random.default_rng(3))
    assert (mirrored == view[:, ::-1]).mean() > 0.99


def test_views_are_those_of_pillow():
    vary = aug.Augmentation(size=96)
    encoded = noise_photo(0, 192, 256)
    for seed in range(12):
        found = vary.view(encoded, "photo", np.random.default_rng(seed))
        expected = pillow_view(encoded, vary, np.random.default_rng(seed))
        assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_a_small_photos_view_is_that_of_its_pixels():
    vary = aug.Augmentation(size=64)
    jpeg = noise_photo(0, 192, 256)
    png = io.BytesIO()
    Image.fromarray(photo(300, 300)).save(png, "PNG")
    for encoded in (jpeg, png.getvalue()):
        image = decode_fast(encoded, "photo")
        for seed in range(4):
            found = vary.view(encoded, "photo", np.random.default_rng(seed))
            expected = vary(image, np.random.default_rng(seed))
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        ((0, 0, 767, 1024), 192, 1),
        ((0, 0, 768, 1024), 192, 2),
        ((3, 5, 1535, 4000), 192, 2),
        ((3, 5, 1536, 4000), 192, 4),
        ((0, 0, 9000, 9000), 192, 8),
    ],
)
def test_how_much_a_jpeg_is_reduced(crop, size, expected):
    assert aug.reduction_for(crop, size) == expected


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_photo_gives_the_same_view(reduction):
    encoded = read_header(noise_photo(0, 901, 1203), "photo")
    small, full = encoded.pixels(reduction), encoded.pixels()
    size = 256 // reduction
    crop = (49, 130, 2 * size * reduction + 5, 2 * size * reduction + 77)
    assert aug.reduction_for(crop, size) == reduction
    top, left, height, width = aug.reduced(crop, reduction)
    found = aug.resize(small[top : top + height, left : left + width], size)
    # The same crop, rounded to whole blocks of pixels.
    rows = slice(top * reduction, (top + height) * reduction)
    columns = slice(left * reduction, (left + width) * reduction)
    expected = aug.resize(full[rows, columns], size)
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 1 and difference.max() <= 8


def test_reduced_crops_hold_what_was_drawn():
    assert aug.reduced((5, 8, 10, 16), 1) == (5, 8, 10, 16)
    assert aug.reduced((5, 8, 10, 16), 4) == (1, 2, 3, 4)


def test_validation_sees_seven_eighths_of_the_shorter_side():
    image = np.zeros((64, 96, 3), np.uint8)
    image[4:60, 20:76] = 255  # the central square of 56
    assert (aug.centre_crop(image, 28) == 255).all()
    assert aug.centre_crop(image, 28).shape == (28, 28, 3)
