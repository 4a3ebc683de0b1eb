"""Renders one photo, from its plan to a JPEG, with its box and its appearance."""

from dataclasses import dataclass

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import (
    occluders,
    photo_effects,
    photo_planning,
    rasteriser,
    scenery,
)
from tokret.data.synthetic_landmarks.building_designs import Landmark
from tokret.data.synthetic_landmarks.camera import Camera, project
from tokret.data.synthetic_landmarks.meshes import Mesh, join
from tokret.data.synthetic_landmarks.photo_effects import Light
from tokret.data.synthetic_landmarks.photo_planning import Shot
from tokret.data.synthetic_landmarks.rasteriser import FrameBuffer
from tokret.data.synthetic_landmarks.relevance import Appearance
from tokret.shapes import Bool, Float, UInt8

OVERSAMPLING = 1.6  # rendered pixels for one of the photo, along each side
THICK_HAZE = 0.4


@dataclass(frozen=True)
class Photo:
    """A photo, and how it shows its landmark.

    `box` is x0, y0, x1, y1 in pixels around the landmark's visible part, or zeros.
    """

    jpeg: bytes
    box: tuple[float, float, float, float]
    appearance: Appearance


def take_photo(
    rng: np.random.Generator, landmark: Landmark, kind: str, longest_side: int
) -> Photo:
    """Takes a photo of a landmark, of one of `photo_planning.KINDS`."""
    shot = photo_planning.plan_photo(rng, kind, landmark)
    size = photo_planning.photo_size(shot, longest_side)
    large = (round(size[0] * OVERSAMPLING), round(size[1] * OVERSAMPLING))
    camera = photo_planning.place_camera(shot, landmark, large)
    light = photo_effects.light_of(rng, shot.light, shot.azimuth)
    frame, mesh = _draw_scene(rng, landmark, camera, light, shot)
    image = _light_up(rng, frame, mesh, light, size)
    rough = kind not in ("clear", "easy")
    developed = photo_effects.develop(rng, image, shot.light, rough)
    quality = int(rng.integers(30 if rough else 55, 95))
    faces = len(landmark.mesh.texture)
    shown = (frame.face >= 0) & (frame.face < faces)
    box = _box(shown, (size[0] / large[0], size[1] / large[1]))
    extent = max((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
    whole = silhouette(camera, landmark.mesh)
    adverse = shot.light == "night" or light.haze > THICK_HAZE
    visible = min(1.0, np.count_nonzero(shown) / max(whole, 1.0))
    appearance = Appearance(shot.azimuth, visible, extent, adverse)
    return Photo(photo_effects.encode(developed, quality), box, appearance)


def _draw_scene(
    rng: np.random.Generator,
    landmark: Landmark,
    camera: Camera,
    light: Light,
    shot: Shot,
) -> tuple[FrameBuffer, Mesh]:
    """Draws the scene; the landmark's faces come first in the mesh."""
    mesh = join([landmark.mesh, *scenery.neighbours(rng, camera, landmark)])
    frame = rasteriser.empty_frame(camera)
    rasteriser.draw_mesh(frame, mesh)
    scenery.draw_ground(rng, frame)
    if light.sun.max() > 0.2:
        scenery.cast_shadow(frame, mesh, light)
    occluders.add_occluders(rng, frame, landmark, shot.crowd)
    return frame, mesh


def _light_up(
    rng: np.random.Generator,
    frame: FrameBuffer,
    mesh: Mesh,
    light: Light,
    size: tuple[int, int],
) -> Float[np.ndarray, "h w 3"]:
    """Lights the scene, shrinks it, and puts haze and sky behind it; 0 to 255."""
    others = {
        scenery.SPRITE: light.sun * 0.5 + light.ambient,
        scenery.SHADED_GROUND: light.ambient * 0.9,
        scenery.GROUND: light.sun * light.direction[2] + light.ambient,
        rasteriser.NOTHING: light.ambient * 0,
    }
    faces = photo_effects.on_faces(light, mesh.normals, mesh.two_sided)
    # Row 0 is for the lowest of the numbers in FrameBuffer.face.
    rows = np.stack([others[number] for number in sorted(others)])
    table = np.concatenate([rows, faces]).astype(np.float32)
    each = np.take(table, frame.face - min(others), axis=0)
    bright = photo_effects.lit(frame.surface, each, light.glow)
    # Twice the landmark's distance is twice in the haze. The sky is infinitely far.
    density = np.float32(-np.log(1 - light.haze) / np.linalg.norm(frame.camera.centre))
    clear = np.exp(-density / np.maximum(frame.nearness, 1e-4))
    drawn = (frame.face != rasteriser.NOTHING).astype(np.float32)
    image, through, solid = (
        np.atleast_3d(cv2.resize(layer, size, interpolation=cv2.INTER_AREA))
        for layer in (bright, clear, drawn)
    )
    image = image * through + light.horizon * (solid * (1 - through))
    return image + scenery.sky(rng, shrunk(frame.camera, size), light) * (1 - solid)


def shrunk(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same camera with fewer pixels: width and height."""
    x, y = size[0] / camera.width, size[1] / camera.height
    principal = (
        (camera.principal[0] + 0.5) * x - 0.5,
        (camera.principal[1] + 0.5) * y - 0.5,
    )
    return Camera(camera.centre, camera.rotation, camera.focal * y, principal, *size)


def _box(
    shown: Bool[np.ndarray, "h w"], scale: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The box around pixels, in pixels of a photo smaller by `scale` (x, y)."""
    columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    x, y = scale
    return (
        float(columns[0] * x),
        float(rows[0] * y),
        float((columns[-1] + 1) * x),
        float((rows[-1] + 1) * y),
    )


def silhouette(camera: Camera, mesh: Mesh) -> float:
    """Pixels that a mesh would cover in an unbounded photo without occluders.

    Pierced faces do not count: most of their area is transparent.
    """
    pixels, depth = project(camera, mesh.corners[~mesh.two_sided])
    pixels = pixels[depth.min(axis=1) > rasteriser.NEAREST]
    # At half the resolution, and at most four times the photo each way: it is only
    # used for a ratio.
    side = 2 * np.array([camera.width, camera.height])
    origin = np.minimum(pixels.min(axis=(0, 1)), 0)
    mask: UInt8[np.ndarray, "h w"] = np.zeros((side[1], side[0]), np.uint8)
    for points in np.round((pixels - origin) / 2).astype(np.int32):
        cv2.fillConvexPoly(mask, points, 1)
    return float(np.count_nonzero(mask)) * 4
