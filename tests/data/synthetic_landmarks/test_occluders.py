"""What stands in front hides the landmark, and nothing is drawn through it."""

import numpy as np

from tokret.data.synthetic_landmarks import (
    occluders,
    photo_planning,
    rasteriser,
    scenery,
)
from tokret.data.synthetic_landmarks.building_designs import design


def scene(crowd: int) -> tuple[rasteriser.FrameBuffer, np.ndarray]:
    """A landmark with things around it, and which pixels were its own before."""
    landmark = design(np.random.default_rng(21))
    shot = photo_planning.plan_photo(np.random.default_rng(21), "clear", landmark)
    camera = photo_planning.place_camera(shot, landmark, (160, 120))
    frame = rasteriser.empty_frame(camera)
    rasteriser.draw_mesh(frame, landmark.mesh)
    before = frame.face >= 0
    occluders.add_occluders(np.random.default_rng(21), frame, landmark, crowd)
    return frame, before


def test_a_crowd_hides_part_of_the_landmark():
    frame, before = scene(crowd=12)
    hidden = before & (frame.face == scenery.SPRITE)
    assert hidden.sum() > 0.05 * before.sum()
    nothing = frame.nearness[frame.face == rasteriser.NOTHING]
    assert (nothing == 0).all()


def test_without_a_crowd_nearly_all_of_it_stays():
    frame, before = scene(crowd=0)
    assert np.count_nonzero(before & (frame.face >= 0)) > 0.9 * before.sum()
