"""The few colours and materials of all landmarks."""

import functools
from collections.abc import Callable

import cv2
import numpy as np

from tokret.shapes import UInt8

Colour = tuple[int, int, int]  # RGB

# Channel 3 of every texture: below HOLE it is transparent, OPAQUE is plain wall, and
# from there to 255 the surface glows at night, like a lit window.
HOLE = 64
OPAQUE = 128
LIT = 255

WALLS: tuple[Colour, ...] = (
    (214, 180, 122),  # sandstone
    (178, 90, 64),  # brick
    (222, 216, 200),  # limestone
    (142, 142, 148),  # granite
    (218, 166, 74),  # ochre plaster
    (206, 124, 114),  # rose plaster
    (134, 160, 120),  # sage plaster
)
ROOFS: tuple[Colour, ...] = (
    (162, 74, 50),  # clay tiles
    (76, 82, 98),  # slate
    (94, 150, 124),  # copper
)
TRIMS: tuple[Colour, ...] = (
    (230, 222, 204),
    (112, 86, 64),
    (176, 156, 124),
    (128, 54, 46),
    (92, 114, 146),
)
GLASS: Colour = (62, 70, 84)
PATTERNS = ("plaster", "brick", "ashlar", "bands", "timber", "panels")
ROOF_PATTERNS = ("tiles", "seams", "rings")


def shade(colour: Colour, factor: float) -> Colour:
    """Makes a colour darker (factor below 1) or lighter."""
    red, green, blue = (min(255, max(0, int(c * factor))) for c in colour)
    return red, green, blue


def fill(image: UInt8[np.ndarray, "h w 4"], points: np.ndarray, colour: Colour) -> None:
    """Fills a polygon of [k, 2] pixels with an opaque colour."""
    cv2.fillPoly(image, [np.round(points).astype(np.int32)], (*colour, OPAQUE))


def surface(
    rng: np.random.Generator, height: int, width: int, colour: Colour, pattern: str
) -> UInt8[np.ndarray, "h w 4"]:
    """Paints a bare wall or roof: RGB, and opacity with glow.

    Sides are in texels, about 8 a metre; the pattern is one of PATTERNS or
    ROOF_PATTERNS; `rng` decides stains and the tint of single stones.
    """
    tint = _tint(rng, height, width)
    tint *= 1 + _MASKS[pattern](rng, height, width)
    painted = np.empty((height, width, 4), np.uint8)
    painted[..., :3] = np.clip(tint[..., None] * np.array(colour, np.float32), 0, 255)
    painted[..., 3] = OPAQUE
    return painted


def _tint(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Stains: smooth noise, and a wall that is darker towards its foot."""
    coarse = rng.normal(1.0, 0.07, (4, 5)).astype(np.float32)
    tint = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return tint * np.linspace(1.03, 0.93, height, dtype=np.float32)[:, None]


def _courses(
    rng: np.random.Generator, height: int, width: int, course: int, stone: int
) -> np.ndarray:
    """Rows of stones, every other row shifted by half a stone, dark joints."""
    y, x = np.mgrid[0:height, 0:width]
    row = y // course
    column = (x + (row % 2) * (stone // 2)) // stone
    tints = rng.normal(0, 0.09, (height // course + 1, width // stone + 2))
    joints = (y % course == 0) | ((x + (row % 2) * (stone // 2)) % stone == 0)
    return np.where(joints, -0.28, tints[row, column])


def _plaster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.normal(0, 0.03, (height, width))


def _bands(
    rng: np.random.Generator,
    height: int,
    width: int,
    course: int,
    light: float,
    dark: float,
) -> np.ndarray:
    del rng
    rows = np.where(np.arange(height) // course % 2 == 0, light, dark)
    return np.broadcast_to(rows[:, None], (height, width))


def _timber(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Dark beams: uprights, rails and braces."""
    del rng
    y, x = np.mgrid[0:height, 0:width]
    beams = (x % 22 < 3) | (y % 24 < 3) | ((x + y) % 44 < 3)
    return np.where(beams, -0.6, 0.12)


def _panels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    tints = rng.normal(0, 0.05, width // 12 + 1)
    x = np.arange(width)
    columns = np.where(x % 12 < 2, -0.3, tints[x // 12])
    return np.broadcast_to(columns, (height, width))


def _seams(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    del rng
    columns = np.where(np.arange(width) % 10 < 2, 0.25, 0.0)
    return np.broadcast_to(columns, (height, width))


_MASKS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "brick": functools.partial(_courses, course=4, stone=8),
    "ashlar": functools.partial(_courses, course=9, stone=18),
    "plaster": _plaster,
    "bands": functools.partial(_bands, course=7, light=0.1, dark=-0.3),
    "timber": _timber,
    "panels": _panels,
    "tiles": functools.partial(_courses, course=5, stone=6),
    "seams": _seams,
    "rings": functools.partial(_bands, course=8, light=0.12, dark=-0.22),
}
