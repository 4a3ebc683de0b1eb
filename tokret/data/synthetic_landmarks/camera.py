"""Perspective projection of points of the world into a photo."""

from dataclasses import dataclass

import numpy as np

from tokret.shapes import Float


@dataclass(frozen=True)
class Camera:
    """A pinhole camera."""

    centre: Float[np.ndarray, " 3"]  # [3] metres
    # [3, 3], rows: the world's directions of the photo's right, down, and into the
    # photo
    rotation: Float[np.ndarray, "3 3"]
    focal: float  # focal length in pixels
    # x, y in pixels of where the optical axis meets the photo
    principal: tuple[float, float]
    width: int  # of the photo in pixels
    height: int  # of the photo in pixels


def look_at(
    centre: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"], roll: float
) -> Float[np.ndarray, "3 3"]:
    """Returns the rotation of a camera that looks at a point.

    The point must not be straight above or below it; `roll` tilts the horizon by
    radians, clockwise.
    """
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward])


def homography(camera: Camera) -> Float[np.ndarray, "3 4"]:
    """The matrix that takes (x, y, z, 1) to (u w, v w, w), w the depth in metres."""
    x, y = camera.principal
    intrinsic = np.array([(camera.focal, 0, x), (0, camera.focal, y), (0, 0, 1.0)])
    shift = -camera.rotation @ camera.centre[:, None]
    return intrinsic @ np.concatenate([camera.rotation, shift], axis=1)


def project(
    camera: Camera, points: Float[np.ndarray, "*n 3"]
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
    """Projects [..., 3] points in metres to [..., 2] pixels and [...] depths in metres.

    A depth that is not positive is behind the camera, and its pixel is meaningless.
    """
    matrix = homography(camera)
    image = points @ matrix[:, :3].T + matrix[:, 3]
    depth = image[..., 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return image[..., :2] / safe[..., None], depth


def horizon(camera: Camera) -> tuple[float, float]:
    """The horizon as a line: y in pixels at the principal point's x, and dy / dx."""
    right, down, forward = camera.rotation[:, 2]
    # Points at infinity have direction d with d_z = 0: right X + down Y + forward = 0.
    y = camera.principal[1] - camera.focal * forward / down
    return y, float(-right / down)
