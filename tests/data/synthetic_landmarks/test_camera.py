"""Projection, by hand."""

import numpy as np

from tokret.data.synthetic_landmarks.camera import Camera, horizon, look_at, project


def camera_in_front(roll: float = 0.0, height: float = 2.0) -> Camera:
    """Ten metres before the origin, looking horizontally at it."""
    centre, target = np.array([0.0, -10.0, height]), np.array([0.0, 0.0, height])
    rotation = look_at(centre, target, roll)
    return Camera(centre, rotation, 100.0, (80.0, 60.0), 160, 120)


def test_a_known_point_projects_where_computed_by_hand():
    # 3 m to the right, 1 m above the axis, 10 m away: 100 * 3 / 10, 100 * 1 / 10.
    pixels, depth = project(camera_in_front(), np.array([(3.0, 0.0, 3.0)]))
    np.testing.assert_allclose(pixels, [(110.0, 50.0)])
    np.testing.assert_allclose(depth, [10.0])


def test_twice_as_far_is_half_as_large():
    pixels, depth = project(camera_in_front(), np.array([(3.0, 10.0, 3.0)]))
    np.testing.assert_allclose(pixels, [(95.0, 55.0)])
    np.testing.assert_allclose(depth, [20.0])


def test_what_is_behind_has_a_negative_depth():
    _, depth = project(camera_in_front(), np.array([(0.0, -12.0, 2.0)]))
    np.testing.assert_allclose(depth, [-2.0])


def test_rolled_clockwise_the_world_turns_counter_clockwise():
    pixels, _ = project(camera_in_front(roll=np.pi / 2), np.array([(3.0, 0.0, 2.0)]))
    np.testing.assert_allclose(pixels, [(80.0, 30.0)], atol=1e-9)


def test_the_horizon_is_where_distant_ground_ends():
    centre, target = np.array([1.0, -10.0, 2.0]), np.array([0.0, 0.0, 6.0])
    rotation = look_at(centre, target, 0.2)
    camera = Camera(centre, rotation, 100.0, (80.0, 60.0), 160, 120)
    middle, slope = horizon(camera)
    ground = np.array([(-3e8, 1e9, 0.0), (4e8, 1e9, 0.0)])
    for x, y in project(camera, ground)[0]:
        np.testing.assert_allclose(y, middle + slope * (x - 80.0), atol=1e-4)
