"""Perspective projection of points of the world into a photo."""

from dataclasses import dataclass

import numpy as np

from tokret.shapes import Float


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
      centre: [3] metres.
      rotation: [3, 3], rows: the world's directions of the photo's right, down, and
        into the photo.
      focal: focal length in pixels.
      principal: x, y in pixels of where the optical axis meets the photo.
      width: of the photo in pixels.
      height: of the photo in pixels.
    """

    centre: Float[np.ndarray, " 3"]
    rotation: Float[np.ndarray, "3 3"]
    focal: float
    principal: tuple[float, float]
    width: int
    height: int


def look_at(
    centre: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"], roll: float
) -> Float[np.ndarray, "3 3"]:
    """Turns a camera towards a point.

    Args:
      centre: [3] where the camera is.
      target: [3] what it looks at, not straight above or below it.
      roll: radians by which the horizon is tilted, clockwise.

    Returns:
      [3, 3] rotation of `Camera`.
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
    moved = np.concatenate([camera.rotation, -camera.rotation @ camera.centre[:, None]],
                           axis=1)  # fmt: skip
    return intrinsic @ moved


def project(
    camera: Camera, points: Float[np.ndarray, "*n 3"]
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
    """Projects points.

    Args:
      camera: the camera.
      points: [..., 3] metres.

    Returns:
      [..., 2] pixels and [...] depths in metres; a depth that is not positive is behind
      the camera, and its pixel is meaningless.
    """
    matrix = homography(camera)
    image = points @ matrix[:, :3].T + matrix[:, 3]
    depth = image[..., 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return image[..., :2] / safe[..., None], depth


def horizon(camera: Camera) -> tuple[float, float]:
    """The horizon as a line: its height at the photo's middle, and its slope.

    Returns:
      y in pixels (downwards) at x = principal point, and dy / dx.
    """
    right, down, forward = camera.rotation[:, 2]
    # Points at infinity have direction d with d_z = 0: right X + down Y + forward = 0.
    return (
        camera.principal[1] - camera.focal * forward / down,
        float(-right / down),
    )
