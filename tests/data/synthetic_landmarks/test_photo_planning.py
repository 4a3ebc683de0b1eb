"""The camera stands where the plan wants it."""

import dataclasses

import numpy as np
import pytest

from tokret.data.synthetic_landmarks.building_designs import design
from tokret.data.synthetic_landmarks.camera import project
from tokret.data.synthetic_landmarks.photo_planning import (
    Shot,
    photo_size,
    place_camera,
)

SHOT = Shot(
    azimuth=30.0,
    rise=0.0,
    fill=0.6,
    field=50.0,
    shift=(0.0, 0.0),
    roll=0.0,
    portrait=False,
    aspect=1.5,
    light="sun",
    crowd=0,
)


def test_photo_size():
    assert photo_size(SHOT, 150) == (150, 100)
    assert photo_size(dataclasses.replace(SHOT, portrait=True), 150) == (100, 150)


@pytest.mark.parametrize("fill", [0.3, 0.6, 0.8])
def test_the_landmark_takes_the_planned_fraction(fill):
    landmark = design(np.random.default_rng(11))
    shot = dataclasses.replace(SHOT, fill=fill)
    camera = place_camera(shot, landmark, (150, 100))
    pixels, depth = project(camera, landmark.mesh.corners)
    across, along = np.ptp(pixels, axis=(0, 1))
    assert max(across / 150, along / 100) == pytest.approx(fill, rel=0.05)
    assert depth.min() > 1


def test_the_azimuth_is_seen_from_above():
    landmark = design(np.random.default_rng(11))
    x, y, z = place_camera(SHOT, landmark, (150, 100)).centre
    assert np.degrees(np.arctan2(x, -y)) == pytest.approx(30)
    assert z == pytest.approx(1.7)


def test_a_shift_moves_the_landmark_over_the_photo():
    landmark = design(np.random.default_rng(11))
    middle = np.array([[0.0, 0.0, 0.48 * landmark.height]])
    shot = dataclasses.replace(SHOT, shift=(0.2, -0.1))
    pixels, _ = project(place_camera(shot, landmark, (150, 100)), middle)
    np.testing.assert_allclose(pixels, [(0.7 * 150 - 0.5, 0.4 * 100 - 0.5)])
