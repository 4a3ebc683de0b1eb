"""Buildings: closed, upright, of their own, and the same from the same seed."""

import numpy as np
import pytest

from tokret.data.synthetic_landmarks.building_designs import design


@pytest.mark.parametrize("number", range(8))
def test_faces_are_flat_and_look_along_their_normals(number):
    mesh = design(np.random.default_rng([3, number])).mesh
    sides = mesh.corners - mesh.corners[:, :1]
    off = np.einsum("fkc,fc->fk", sides, mesh.normals)
    np.testing.assert_allclose(off, 0, atol=1e-9)
    # Corners run counter-clockwise as seen from outside.
    turning = np.cross(sides[:, 1], sides[:, 2])
    assert (np.einsum("fc,fc->f", turning, mesh.normals) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1)


@pytest.mark.parametrize("number", range(8))
def test_buildings_stand_on_the_ground_and_have_a_size(number):
    landmark = design(np.random.default_rng([4, number]))
    low = landmark.mesh.corners.min(axis=(0, 1))
    assert low[2] == pytest.approx(0.0, abs=1e-9)
    assert 5 < landmark.height < 90
    assert 5 < landmark.width < 80


def test_a_seed_decides_the_building():
    one, same, other = (design(np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.mesh.corners, same.mesh.corners)
    for a, b in zip(one.mesh.textures, same.mesh.textures, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert one.mesh.corners.shape != other.mesh.corners.shape or not np.allclose(
        one.mesh.corners, other.mesh.corners
    )
