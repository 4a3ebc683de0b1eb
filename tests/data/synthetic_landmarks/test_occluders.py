"""What stands in front hides the landmark, and nothing is drawn through it."""

import numpy as np

from tokret.data.synthetic_landmarks import occluders, planning, rendering, scenery
from tokret.data.synthetic_landmarks.architecture import design


def scene(crowd: int) -> tuple[rendering.Canvas, np.ndarray]:
    """A landmark with things around it, and which pixels were its own before."""
    landmark = design(np.random.default_rng(21))
    shot = planning.plan(np.random.default_rng(21), "clear", landmark)
    camera = planning.place_camera(shot, landmark, (160, 120))
    canvas = rendering.blank(120, 160)
    rendering.draw(canvas, camera, landmark.mesh)
    before = canvas.face >= 0
    occluders.place(np.random.default_rng(21), canvas, camera, landmark, crowd)
    return canvas, before


def test_a_crowd_hides_part_of_the_landmark():
    canvas, before = scene(crowd=12)
    hidden = before & (canvas.face == scenery.SPRITE)
    assert hidden.sum() > 0.05 * before.sum()
    nothing = canvas.nearness[canvas.face == rendering.NOTHING]
    assert (nothing == 0).all()


def test_without_a_crowd_nearly_all_of_it_stays():
    canvas, before = scene(crowd=0)
    assert np.count_nonzero(before & (canvas.face >= 0)) > 0.9 * before.sum()
