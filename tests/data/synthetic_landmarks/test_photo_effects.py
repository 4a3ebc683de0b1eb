"""Light by angle, windows at night, and the camera's faults."""

import cv2
import numpy as np
import pytest

from tokret.data.synthetic_landmarks.photo_effects import (
    develop,
    encode,
    light_of,
    lit,
    on_faces,
)
from tokret.data.synthetic_landmarks.photo_planning import LIGHTS


def test_a_wall_in_the_sun_is_brighter_than_one_that_faces_away():
    light = light_of(np.random.default_rng(0), "sun", 0.0)
    towards = np.stack([light.direction, -light.direction]).astype(np.float64)
    one_sided, both = np.array([False, False]), np.array([True, True])
    bright, dark = on_faces(light, towards, one_sided)
    assert (bright > 1.3 * dark).all()
    bright, dark = on_faces(light, towards, both)
    assert (dark > 0.9 * bright).all()


def test_lit_windows_glow_only_where_the_texture_glows():
    surface = np.full((1, 2, 4), 100, np.uint8)
    surface[0, :, 3] = 128, 255
    dark = np.full((1, 2, 3), 0.1, np.float32)
    wall, window = lit(surface, dark, 1.0)[0]
    np.testing.assert_allclose(wall, 10)
    np.testing.assert_allclose(window, [245, 190, 105])
    np.testing.assert_allclose(lit(surface, dark, 0.0), 10)


@pytest.mark.parametrize("kind", LIGHTS)
def test_every_light_can_be_developed(kind):
    rng = np.random.default_rng(5)
    light = light_of(rng, kind, 0.0)
    assert np.linalg.norm(light.direction) == pytest.approx(1)
    assert light.direction[2] > 0
    image = np.full((40, 60, 3), 120, np.float32)
    photo = develop(rng, image, kind, rough=True)
    assert photo.shape == (40, 60, 3)
    assert photo.std() > 0


def test_encoded_photos_keep_red_red():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    bgr = cv2.imdecode(np.frombuffer(encode(red, 95), np.uint8), cv2.IMREAD_COLOR)
    assert bgr[8, 8, 2] > 230
    assert bgr[8, 8, 0] < 20
