"""Draws textured faces into a frame buffer with depths, without light."""

from dataclasses import dataclass

import cv2
import numpy as np

from tokret.data.synthetic_landmarks.camera import Camera, homography, project
from tokret.data.synthetic_landmarks.materials import HOLE
from tokret.data.synthetic_landmarks.meshes import Mesh
from tokret.shapes import Float, Int, UInt8

NEAREST = 0.5  # metres; a face that comes closer to the camera is not drawn
NOTHING = -1
SHIFT = 4  # cv2 takes corners in sixteenths of a pixel


@dataclass
class FrameBuffer:
    """The pixels drawn so far."""

    camera: Camera  # whose photo this is
    # [h, w, 4] uint8, unlit colour, and opacity with glow
    surface: UInt8[np.ndarray, "h w 4"]
    # [h, w] float32, 1 / depth in 1 / metres; 0 is infinitely far
    nearness: Float[np.ndarray, "h w"]
    face: Int[np.ndarray, "h w"]  # [h, w] int16 index of the face, or NOTHING


def empty_frame(camera: Camera) -> FrameBuffer:
    """A frame buffer without any pixels drawn."""
    height, width = camera.height, camera.width
    return FrameBuffer(
        camera=camera,
        surface=np.zeros((height, width, 4), np.uint8),
        nearness=np.zeros((height, width), np.float32),
        face=np.full((height, width), NOTHING, np.int16),
    )


def draw_mesh(frame: FrameBuffer, mesh: Mesh) -> None:
    """Draws a mesh into a frame, in place.

    Nearer faces hide farther ones in any order; `frame.face` then has their indices.
    """
    camera = frame.camera
    pixels, depth = project(camera, mesh.corners)
    matrix = homography(camera)
    # Texel (s, t, 1) -> (u w, v w, w): each face's plane seen through the camera.
    to_photo = matrix[:, :3] @ mesh.plane
    to_photo[:, :, 2] += matrix[:, 3]
    towards = ((camera.centre - mesh.corners[:, 0]) * mesh.normals).sum(axis=1)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    seen = (depth.min(axis=1) > NEAREST) & ((towards > 1e-6) | mesh.two_sided)
    seen &= np.abs(towards) > 1e-6
    seen &= (high > 0).all(axis=1) & (low < (camera.width, camera.height)).all(axis=1)
    chosen = np.flatnonzero(seen)
    inverse = np.linalg.inv(to_photo[chosen])
    corners = np.round(pixels[chosen] * 2**SHIFT).astype(np.int64)
    first = np.maximum(np.floor(low[chosen]), 0).astype(int)
    last = np.minimum(np.ceil(high[chosen]) + 1, (camera.width, camera.height))
    last = last.astype(int)
    for number, face in enumerate(chosen):
        (x0, y0), (x1, y1) = first[number].tolist(), last[number].tolist()
        box = (x0, y0, x1, y1)
        _draw_face(frame, mesh, int(face), inverse[number], corners[number], box)


def _draw_face(
    frame: FrameBuffer,
    mesh: Mesh,
    face: int,
    inverse: Float[np.ndarray, "3 3"],
    corners: Int[np.ndarray, "4 2"],
    box: tuple[int, int, int, int],
) -> None:
    """Draws one face into the part of the frame that its box covers.

    Pixel centres are at whole coordinates, as in OpenCV.
    """
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    shifted = np.clip(corners - np.array([x0, y0]) * 2**SHIFT, -(2**24), 2**24)
    cv2.fillConvexPoly(mask, shifted.astype(np.int32), 255, shift=SHIFT)
    # (s, t, 1) / w = inverse (x, y, 1): its last row is 1 / depth, affine in x and y.
    ax, ay, a = inverse[2]
    rise = np.arange(y0, y1, dtype=np.float32) * np.float32(ay) + np.float32(a)
    run = np.arange(x0, x1, dtype=np.float32) * np.float32(ax)
    nearness = rise[:, None] + run[None, :]
    before = frame.nearness[y0:y1, x0:x1]
    mask *= nearness > before
    if not mask.any():
        return
    size = (x1 - x0, y1 - y0)
    texels, from_photo = _level(mesh.textures[mesh.texture[face]], inverse, box)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    surface = cv2.warpPerspective(
        texels, from_photo, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    if mesh.two_sided[face]:
        mask *= surface[..., 3] >= HOLE
    cv2.copyTo(surface, mask, frame.surface[y0:y1, x0:x1])
    cv2.copyTo(nearness, mask, before)
    frame.face[y0:y1, x0:x1][mask > 0] = face


def _level(
    levels: tuple[np.ndarray, ...],
    inverse: Float[np.ndarray, "3 3"],
    box: tuple[int, int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses a texture's level and maps the box's pixels to that level's texels.

    Returns:
      The texture, and the [3, 3] matrix from pixels of the box to its texels.
    """
    x0, y0, x1, y1 = box
    middle = inverse @ ((x0 + x1) / 2, (y0 + y1) / 2, 1.0)
    # Texels that one pixel covers, at the middle of the face: the derivative of a
    # quotient; its smaller direction, so that oblique walls keep their windows.
    across = (inverse[:2, :2] * middle[2] - np.outer(middle[:2], inverse[2, :2])) / (
        middle[2] ** 2
    )
    steps = np.hypot(across[0], across[1])
    step = max(1.0, float(np.sqrt(steps[0] * steps[1])))
    level = min(int(np.log2(step) + 0.5), len(levels) - 1)
    chosen = levels[level]
    scale = np.diag(
        [
            chosen.shape[1] / levels[0].shape[1],
            chosen.shape[0] / levels[0].shape[0],
            1.0,
        ]
    )
    # Texel edges are at whole texture coordinates, texel centres half a texel further.
    half = np.array([(1, 0, -0.5), (0, 1, -0.5), (0, 0, 1.0)])
    offset = np.array([(1, 0, x0), (0, 1, y0), (0, 0, 1.0)])
    return chosen, half @ scale @ inverse @ offset
