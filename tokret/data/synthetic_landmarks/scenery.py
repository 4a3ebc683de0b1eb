"""The surroundings of a landmark: sky, hills, ground, other houses, shadows."""

from functools import lru_cache

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import materials
from tokret.data.synthetic_landmarks.building_designs import Landmark
from tokret.data.synthetic_landmarks.camera import Camera, homography, horizon, project
from tokret.data.synthetic_landmarks.meshes import Mesh, MeshBuilder, moved, rectangle
from tokret.data.synthetic_landmarks.photo_effects import Light
from tokret.data.synthetic_landmarks.rasteriser import NEAREST, FrameBuffer
from tokret.data.synthetic_landmarks.style import invent_style
from tokret.shapes import Float, UInt8

# In FrameBuffer.face, below the indices of faces:
GROUND = -2
SHADED_GROUND = -3
SPRITE = -4

HOUSES = 16
TILE = 12.0  # metres of ground that a texture covers before it repeats
_TEXELS = 128
_SEED = 0x70CE7  # of the houses and grounds of all datasets


@lru_cache(maxsize=HOUSES)
def house(number: int) -> Mesh:
    """An ordinary house of the neighbourhood, about 10 metres wide."""
    rng = np.random.default_rng([_SEED, 1, number])
    builder = MeshBuilder(rng, invent_style(rng))
    x, y = rng.uniform(4, 9), rng.uniform(4, 7)
    height = rng.uniform(5, 15)
    foot = rectangle(-x, x, -y, y)
    builder.prism(foot, 0.0, height, ("side",))
    if rng.random() < 0.6:
        builder.gable(-x, x, -y, y, height, y * rng.uniform(0.5, 1.0), across=True)
    return builder.finish()


def neighbours(
    rng: np.random.Generator, camera: Camera, landmark: Landmark
) -> list[Mesh]:
    """Places houses behind and beside the landmark, as seen from the camera."""
    away = -camera.centre[:2] / np.linalg.norm(camera.centre[:2])
    aside = np.array([away[1], -away[0]])
    reach = np.hypot(landmark.width, landmark.depth) / 2
    meshes = []
    for _ in range(int(rng.integers(0, 8))):
        behind = reach * rng.uniform(0.2, 1.6) + 10
        sideways = rng.choice([-1, 1]) * (reach * rng.uniform(0.1, 1.8) + 6)
        x, y = away * behind + aside * sideways
        number = int(rng.integers(HOUSES))
        turn = float(rng.uniform(-0.4, 0.4)) + np.pi / 2 * int(rng.integers(4))
        meshes.append(moved(house(number), float(x), float(y), turn))
    return meshes


_GROUNDS = ((128, 126, 122), (110, 128, 76), (166, 152, 126), (96, 98, 104))


@lru_cache(maxsize=len(_GROUNDS))
def _ground(kind: int) -> UInt8[np.ndarray, "h w 4"]:
    rng = np.random.default_rng([_SEED, 2, kind])
    pattern = ("ashlar", "plaster", "brick", "plaster")[kind]
    return materials.surface(rng, _TEXELS, _TEXELS, _GROUNDS[kind], pattern)


def draw_ground(rng: np.random.Generator, frame: FrameBuffer) -> None:
    """Draws the infinite ground plane behind everything in the frame."""
    camera = frame.camera
    kind = int(rng.integers(len(_GROUNDS)))
    turn = rng.uniform(0, np.pi)
    scale = TILE / _TEXELS
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    plane = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 0), (0, 0, 1.0)])
    inverse = np.linalg.inv(homography(camera) @ plane)
    ax, ay, a = inverse[2]
    y = np.arange(camera.height, dtype=np.float32)[:, None]
    x = np.arange(camera.width, dtype=np.float32)[None, :]
    nearness = np.float32(ax) * x + np.float32(ay) * y + np.float32(a)
    seen = nearness > np.maximum(frame.nearness, 1e-5)
    rows = np.flatnonzero(seen.any(axis=1))
    if not len(rows):
        return
    below = np.s_[rows[0] : rows[-1] + 1]
    seen, nearness = seen[below], nearness[below]
    inverse = inverse @ np.array([(1, 0, 0), (0, 1, rows[0]), (0, 0, 1.0)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    texture = _ground(kind)
    surface = cv2.warpPerspective(
        texture, inverse, seen.shape[::-1], flags=flags, borderMode=cv2.BORDER_WRAP
    )
    # Distant single stones would flicker: only their mean colour is drawn.
    near = np.clip(nearness * np.float32(camera.focal * scale * 2.5), 0, 1)
    plain = np.broadcast_to(texture.mean(axis=(0, 1)), surface.shape).astype(np.uint8)
    surface = cv2.blendLinear(surface, plain, near, 1 - near)
    mask = seen.astype(np.uint8)
    cv2.copyTo(surface, mask, frame.surface[below])
    cv2.copyTo(nearness, mask, frame.nearness[below])
    frame.face[below][seen] = GROUND


def cast_shadow(frame: FrameBuffer, mesh: Mesh, light: Light) -> None:
    """Darkens the ground in the shadow of a mesh."""
    drop = mesh.corners[..., 2:] / max(float(light.direction[2]), 0.1)
    shadow = mesh.corners - drop * light.direction
    pixels, depth = project(frame.camera, shadow)
    mask = np.zeros(frame.face.shape, np.uint8)
    for points in pixels[depth.min(axis=1) > NEAREST]:
        corners = np.clip(np.round(points), -30000, 30000).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 255)
    frame.face[(mask > 0) & (frame.face == GROUND)] = SHADED_GROUND


def sky(
    rng: np.random.Generator, camera: Camera, light: Light
) -> Float[np.ndarray, "h w 3"]:
    """The sky with its clouds, and hills along the horizon; 0 to 255."""
    middle, slope = horizon(camera)
    x = np.arange(camera.width, dtype=np.float32)[None, :]
    y = np.arange(camera.height, dtype=np.float32)[:, None]
    line = x * np.float32(slope) + np.float32(middle - slope * camera.principal[0])
    above = np.clip((line - y) / np.float32(camera.focal), 0, 1)[..., None]
    image = light.horizon + (light.zenith - light.horizon) * np.sqrt(above)
    noise = rng.normal(0, 1, (5, 6)).astype(np.float32)
    finer = rng.normal(0, 0.5, (14, 18)).astype(np.float32)
    size = (camera.width, camera.height)
    coarse = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    detail = cv2.resize(finer, size, interpolation=cv2.INTER_CUBIC)
    cover = np.clip(coarse + detail - 0.4, 0, 1)[..., None] * np.float32(light.clouds)
    image += (np.minimum(255, light.horizon * np.float32(1.08)) - image) * cover
    return _hills(rng, image, line, y, light)


def _hills(
    rng: np.random.Generator,
    image: Float[np.ndarray, "h w 3"],
    line: Float[np.ndarray, "1 w"],
    y: Float[np.ndarray, "h 1"],
    light: Light,
) -> Float[np.ndarray, "h w 3"]:
    height, width = image.shape[:2]
    heights = rng.random((1, int(rng.integers(3, 14)))).astype(np.float32)
    bumps = cv2.resize(heights, (width, 1), interpolation=cv2.INTER_CUBIC)
    ridge = line - bumps * np.float32(rng.uniform(0, 0.12) * height)
    tint = rng.uniform(0.45, 0.85) * rng.uniform((0.85, 0.92, 0.9), (1, 1.05, 1.05))
    image[y > ridge] = light.horizon * tint.astype(np.float32)
    return image
