"""Flat cut-outs in the scene: trees, people, cars, lamp posts."""

from functools import lru_cache

import cv2
import numpy as np

from tokret.data.synthetic_landmarks.building_designs import Landmark
from tokret.data.synthetic_landmarks.camera import project
from tokret.data.synthetic_landmarks.materials import OPAQUE
from tokret.data.synthetic_landmarks.rasteriser import NEAREST, FrameBuffer
from tokret.data.synthetic_landmarks.scenery import SPRITE
from tokret.shapes import UInt8

Sprite = UInt8[np.ndarray, "h w 4"]

EACH = 8  # different cut-outs of a kind
_SEED = 0x5B217
_SIDE = 96  # texels of a cut-out's height


def _blank(width: int) -> Sprite:
    return np.zeros((_SIDE, width, 4), np.uint8)


def _tree(rng: np.random.Generator) -> Sprite:
    image = _blank(80)
    cv2.rectangle(image, (37, 55), (43, _SIDE), (84, 66, 50, OPAQUE), -1)
    green = rng.uniform((50, 80, 30), (120, 130, 70))
    for step in range(60):
        radius = int(rng.integers(5, 13))
        x, y = 40 + rng.normal(0, 12), 36 + rng.normal(0, 13)
        colour = green * (0.6 + 0.7 * step / 60)
        centre = (int(np.clip(x, 12, 68)), int(np.clip(y, 12, 74)))
        cv2.circle(image, centre, radius, (*colour, OPAQUE), -1)
    return image


def _conifer(rng: np.random.Generator) -> Sprite:
    image = _blank(44)
    green = rng.uniform((30, 60, 40), (60, 90, 60))
    for step in range(6):
        top, half = 2 + 12 * step, 8 + 2.4 * step
        points = np.array([(22, top), (22 - half, top + 28), (22 + half, top + 28)])
        colour = (*(green * (0.7 + 0.08 * step)), OPAQUE)
        cv2.fillPoly(image, [points.astype(np.int32)], colour)
    return image


def _person(rng: np.random.Generator) -> Sprite:
    image = _blank(36)
    coat, legs = rng.uniform(20, 200, (2, 3))
    skin = np.array([200, 160, 130]) * rng.uniform(0.4, 1.1)
    cv2.rectangle(image, (11, 54), (17, 95), (*legs, OPAQUE), -1)
    cv2.rectangle(image, (19, 54), (25, 95), (*(legs * 0.9), OPAQUE), -1)
    cv2.ellipse(image, (18, 38), (11, 22), 0, 0, 360, (*coat, OPAQUE), -1)
    cv2.circle(image, (18, 10), 8, (*np.minimum(skin, 255), OPAQUE), -1)
    return image


def _car(rng: np.random.Generator) -> Sprite:
    image = _blank(220)
    paint = (*rng.uniform(30, 220, 3), OPAQUE)
    cabin = np.array([(40, 45), (70, 6), (150, 6), (185, 45)])
    cv2.fillPoly(image, [cabin], paint)
    cv2.fillPoly(image, [np.array([(56, 42), (76, 14), (145, 14), (166, 42)])],
                 (60, 70, 84, OPAQUE))  # fmt: skip
    cv2.rectangle(image, (6, 42), (214, 80), paint, -1)
    for x in (50, 170):
        cv2.circle(image, (x, 78), 17, (26, 26, 28, OPAQUE), -1)
    return image


def _lamp(rng: np.random.Generator) -> Sprite:
    image = _blank(20)
    metal = (*np.full(3, rng.uniform(30, 110)), OPAQUE)
    cv2.rectangle(image, (9, 8), (11, 95), metal, -1)
    cv2.circle(image, (10, 8), 7, (240, 230, 200, 255), -1)
    return image


def _hedge(rng: np.random.Generator) -> Sprite:
    image = _blank(260)
    green = rng.uniform((50, 80, 30), (100, 115, 60))
    for _ in range(150):
        centre = (int(rng.integers(14, 246)), int(rng.integers(18, 92)))
        colour = (*(green * rng.uniform(0.7, 1.2)), OPAQUE)
        cv2.circle(image, centre, int(rng.integers(6, 14)), colour, -1)
    return image


# Each with its height in metres.
_KINDS = (
    (_tree, 11.0),
    (_conifer, 12.0),
    (_person, 1.75),
    (_car, 1.6),
    (_lamp, 6.0),
    (_hedge, 1.8),
)


@lru_cache(maxsize=EACH * len(_KINDS))
def _cutout(kind: int, number: int) -> Sprite:
    rng = np.random.default_rng([_SEED, kind, number])
    return _KINDS[kind][0](rng)


def add_occluders(
    rng: np.random.Generator, frame: FrameBuffer, landmark: Landmark, crowd: int
) -> None:
    """Draws cut-outs into the scene.

    They do not intersect the landmark: `crowd` are between it and the camera, and a few
    more beside and behind it.
    """
    camera = frame.camera
    eye = camera.centre[:2]
    distance = float(np.linalg.norm(eye))
    towards = -eye / distance
    aside = np.array([towards[1], -towards[0]])
    reach = np.hypot(landmark.width, landmark.depth) / 2
    spread = 0.5 * camera.width / camera.focal
    for _ in range(crowd):
        depth = rng.uniform(0.15, 0.8) * (distance - 0.7 * reach)
        at = eye + towards * depth + aside * depth * spread * rng.uniform(-1, 1)
        kind = int(rng.choice(len(_KINDS), p=[0.24, 0.12, 0.26, 0.14, 0.12, 0.12]))
        _draw_cutout(rng, frame, at, kind)
    for _ in range(int(rng.integers(0, 7))):
        depth = distance + reach * rng.uniform(-0.3, 1.5)
        sideways = rng.choice([-1, 1]) * rng.uniform(1.0, 2.2) * reach
        at = eye + towards * depth + aside * sideways
        kind = int(rng.choice(len(_KINDS), p=[0.45, 0.25, 0.05, 0.1, 0.05, 0.1]))
        _draw_cutout(rng, frame, at, kind)


def _draw_cutout(
    rng: np.random.Generator, frame: FrameBuffer, at: np.ndarray, kind: int
) -> None:
    """Draws one upright cut-out with its foot at a point of the ground."""
    camera, image = frame.camera, _cutout(kind, int(rng.integers(EACH)))
    metres = _KINDS[kind][1] * rng.uniform(0.75, 1.3)
    feet, depth = project(camera, np.array([(*at, 0.0)]))
    if depth[0] < NEAREST * 4:
        return
    height = camera.focal * metres / depth[0]
    width = height * image.shape[1] / image.shape[0]
    x0, y0 = round(feet[0, 0] - width / 2), round(feet[0, 1] - height)
    w, h = max(1, round(width)), max(1, round(height))
    if w > 4 * camera.width or h > 4 * camera.height:
        return
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(camera.width, x0 + w), min(camera.height, y0 + h)
    if left >= right or top >= bottom:
        return
    scaled = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    part = scaled[top - y0 : bottom - y0, left - x0 : right - x0]
    window = np.s_[top:bottom, left:right]
    nearness = np.float32(1 / depth[0])
    seen = (part[..., 3] >= OPAQUE - 40) & (frame.nearness[window] < nearness)
    frame.surface[window][seen] = part[seen]
    frame.surface[window][..., 3][seen & (part[..., 3] < OPAQUE)] = OPAQUE
    frame.nearness[window][seen] = nearness
    frame.face[window][seen] = SPRITE
