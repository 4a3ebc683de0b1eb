"""Photos: their ground truth is true."""

import cv2
import numpy as np
import pytest

from tokret.data.synthetic_landmarks import photo_planning, rasteriser
from tokret.data.synthetic_landmarks.building_designs import design
from tokret.data.synthetic_landmarks.photo_rendering import silhouette, take_photo
from tokret.data.synthetic_landmarks.relevance import judge


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("number", range(12))
def test_clear_photos_are_easy_and_night_photos_hard_for_every_clear_query(number):
    landmark = design(np.random.default_rng([5, number]))
    query, clear, night = (
        take_photo(np.random.default_rng([5, number, kind]), landmark, name, 96)
        for kind, name in enumerate(("clear", "clear", "night"))
    )
    assert judge(query.appearance, clear.appearance) == "easy"
    assert judge(query.appearance, night.appearance) == "hard"


def test_boxes_are_in_the_photo_and_agree_with_the_extent():
    landmark = design(np.random.default_rng(1))
    for number in range(8):
        photo = take_photo(np.random.default_rng([1, number]), landmark, "easy", 96)
        height, width = decoded(photo.jpeg).shape[:2]
        assert max(width, height) == 96
        x0, y0, x1, y1 = photo.box
        assert 0 <= x0 < x1 <= width + 1e-6
        assert 0 <= y0 < y1 <= height + 1e-6
        extent = max((x1 - x0) / width, (y1 - y0) / height)
        assert photo.appearance.extent == pytest.approx(extent)


def test_the_silhouette_counts_what_is_outside_the_photo():
    landmark = design(np.random.default_rng(2))
    rng = np.random.default_rng(2)
    shot = photo_planning.plan_photo(rng, "clear", landmark)
    wide = photo_planning.place_camera(shot, landmark, (160, 120))
    frame = rasteriser.empty_frame(wide)
    rasteriser.draw_mesh(frame, landmark.mesh)
    seen = np.count_nonzero(frame.face >= 0)
    assert silhouette(wide, landmark.mesh) == pytest.approx(seen, rel=0.12)
    # The same camera, of which only the left half is left.
    half = photo_planning.Camera(
        wide.centre, wide.rotation, wide.focal, wide.principal, 80, 120
    )
    assert silhouette(half, landmark.mesh) == pytest.approx(seen, rel=0.12)
