import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokret.data.views import View, thumbnail_size
from tokret.errors import UserError

FEW = settings(derandomize=True, deadline=None, max_examples=80)
SIDES = st.integers(1, 300)


def photo(width, height):
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@FEW
@given(SIDES, SIDES, st.floats(1, 400))
def test_sizes_are_those_of_pillows_thumbnail(width, height, limit):
    image = photo(width, height)
    image.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    assert thumbnail_size((width, height), limit) == image.size


def test_pixels_are_those_of_pillows_thumbnail():
    image = photo(211, 97)
    view = View(encoded(image), "a", None, 64)
    assert view.size() == view.pixels().shape[:2] == (29, 64)
    image.thumbnail((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(view.pixels(), np.asarray(image))


def test_a_query_is_cropped_and_shrunk_as_its_photo_would_be():
    image = photo(200, 100)
    box = (19.6, 10.2, 120.4, 90.0)  # 100 x 80 once rounded
    view = View(encoded(image), "a", box, 100)
    assert view.size() == view.pixels().shape[:2] == (40, 50)
    cropped = image.crop((20, 10, 120, 90))
    cropped.thumbnail((50, 50), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(view.pixels(), np.asarray(cropped))


def test_small_photos_are_not_enlarged():
    view = View(encoded(photo(30, 20)), "a", None, 1024)
    np.testing.assert_array_equal(view.pixels(), np.asarray(photo(30, 20)))


@pytest.mark.parametrize(
    "box", [(5.0, 5.0, 5.3, 20.0), (0.0, 0.0, 1e8, 1e8), (9.0, 9.0, 3.0, 3.0)]
)
def test_a_box_that_is_no_part_of_a_photo_is_refused(box):
    view = View(encoded(photo(30, 20)), "q.jpg", box, 64)
    for look in (view.size, view.pixels):
        with pytest.raises(UserError, match=r"q\.jpg is 30 x 20 pixels and its box"):
            look()
