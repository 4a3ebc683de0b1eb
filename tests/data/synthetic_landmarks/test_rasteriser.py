"""The depth buffer and the textures, on walls of plain colours."""

import numpy as np
import pytest

from tokret.data.synthetic_landmarks.camera import Camera, look_at
from tokret.data.synthetic_landmarks.meshes import Mesh, join, levels
from tokret.data.synthetic_landmarks.rasteriser import NOTHING, draw_mesh, empty_frame

RED, BLUE = (255, 0, 0, 128), (0, 0, 255, 128)
CAMERA = Camera(
    np.array([0.0, -10.0, 2.0]),
    look_at(np.array([0.0, -10.0, 2.0]), np.array([0.0, 0.0, 2.0]), 0.0),
    100.0,
    (80.0, 60.0),
    160,
    120,
)


def wall(y: float, texture: np.ndarray, two_sided: bool = False) -> Mesh:
    """A wall 4 m wide and high around the camera's axis, at a depth of y + 10."""
    corners = np.array([(-2.0, y, 0.0), (2.0, y, 0.0), (2.0, y, 4.0), (-2.0, y, 4.0)])
    rows, columns = texture.shape[:2]
    plane = np.array([(4 / columns, 0, -2.0), (0, 0, y), (0, -4 / rows, 4.0)])
    return Mesh(
        corners=corners[None],
        plane=plane[None],
        normals=np.array([(0.0, -1.0, 0.0)]),
        two_sided=np.array([two_sided]),
        texture=np.array([0]),
        textures=(levels(texture),),
    )


def plain(colour: tuple[int, int, int, int]) -> np.ndarray:
    return np.full((16, 16, 4), colour, np.uint8)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_wall_hides_the_farther_whatever_the_order(order):
    walls = [wall(0.0, plain(RED)), wall(10.0, plain(BLUE))]
    frame = empty_frame(CAMERA)
    draw_mesh(frame, join([walls[i] for i in order]))
    assert frame.face[60, 80] == order.index(0)
    np.testing.assert_array_equal(frame.surface[60, 80], RED)
    assert frame.nearness[60, 80] == pytest.approx(0.1)
    assert not (frame.face == order.index(1)).any()  # the same size, twice as far


def test_a_wall_covers_its_projection_and_nothing_else():
    frame = empty_frame(CAMERA)
    draw_mesh(frame, wall(0.0, plain(RED)))
    rows, columns = np.nonzero(frame.face == 0)
    # 2 m at 10 m are 20 pixels each way.
    assert (columns.min(), columns.max()) == (60, 100)
    assert (rows.min(), rows.max()) == (40, 80)
    assert frame.face[10, 10] == NOTHING


def test_nothing_is_seen_from_behind():
    mesh = wall(0.0, plain(RED))
    frame = empty_frame(CAMERA)
    draw_mesh(frame, Mesh(**{**vars(mesh), "normals": -mesh.normals}))
    assert (frame.face == NOTHING).all()


def test_a_hole_shows_what_is_behind():
    pierced = plain(RED)
    pierced[4:12, 4:12, 3] = 0
    frame = empty_frame(CAMERA)
    draw_mesh(frame, join([wall(0.0, pierced, True), wall(10.0, plain(BLUE))]))
    np.testing.assert_array_equal(frame.surface[60, 80], BLUE)
    np.testing.assert_array_equal(frame.surface[60, 63], RED)


def test_a_texture_is_neither_mirrored_nor_upside_down():
    quarters = plain(RED)
    quarters[:8, 8:] = BLUE  # upper right
    frame = empty_frame(CAMERA)
    draw_mesh(frame, wall(0.0, quarters))
    np.testing.assert_array_equal(frame.surface[50, 92], BLUE)
    for row, column in ((50, 68), (72, 68), (72, 92)):
        np.testing.assert_array_equal(frame.surface[row, column], RED)
