import io

import numpy as np
import pytest
from PIL import Image

from tokret.benchmark.noise_photos import noise_photo
from tokret.data.resizing import resize


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.open(io.BytesIO(noise_photo(0, 620, 840))).convert("RGB"))


def pillow(image, size):
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size, size), bilinear))


def away(image, size):
    return np.abs(resize(image, size).astype(int) - pillow(image, size))


@pytest.mark.parametrize(
    ("height", "width"),
    [
        *[(side, side) for side in (130, 150, 180, 210, 240, 300, 400, 600)],
        *[(600, 840), (100, 240), (300, 90), (600, 100), (129, 500)],
    ],
)
def test_it_is_near_pillows_bilinear(photo, height, width):
    found = away(photo[:height, :width], 128)
    assert found.mean() < 0.7 and found.max() <= 8


@pytest.mark.parametrize("side", [1, 40, 100, 128, 256])
def test_it_is_pillows_where_it_enlarges_or_halves(photo, side):
    # Rounded once; where it halves, after the blur as well.
    assert away(photo[:side, :side], 128).max() <= (1 if side <= 128 else 2)


@pytest.mark.parametrize("size", [20, 37, 48])
def test_what_is_finer_than_a_pixel_turns_grey(size):
    board = np.indices((96, 96)).sum(axis=0) % 2 * np.uint8(255)
    image = np.stack([board.astype(np.uint8)] * 3, axis=-1)
    inside = resize(image, size)[2:-2, 2:-2]
    assert np.abs(inside.astype(int) - 127.5).max() < 32


@pytest.mark.parametrize("side", [10, 32, 50, 64, 100])
def test_the_result_is_never_part_of_the_photo(side):
    image = np.full((side, side, 3), 77, np.uint8)
    small = resize(image, 32)
    assert not np.shares_memory(small, image)
    assert small.shape == (32, 32, 3) and (small == 77).all()
    assert small.flags.c_contiguous


def test_a_line_of_pixels_becomes_a_square():
    line = np.zeros((1, 4000, 3), np.uint8)
    line[:, 2000:] = 255
    square = resize(line, 16)
    assert (square[:, :7] == 0).all() and (square[:, 9:] == 255).all()
