"""The catalogue of windows, doors and ornaments, drawn into wall textures."""

from collections.abc import Callable

import cv2
import numpy as np

from tokret.data.synthetic_landmarks.materials import (
    GLASS,
    LIT,
    OPAQUE,
    Colour,
    fill,
    shade,
)
from tokret.shapes import Float, UInt8

Texture = UInt8[np.ndarray, "h w 4"]
Polygon = Float[np.ndarray, "k 2"]  # x to the right, y up, in the unit square


_SQUARE: Polygon = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])


def _crowned(spring: float, crown: Callable[[np.ndarray], np.ndarray]) -> Polygon:
    """A rectangle up to `spring`, above it a crown of height crown(x), x in [0, 1]."""
    x = np.linspace(1.0, 0.0, 11)
    top = spring + (1 - spring) * crown(x)
    return np.concatenate([[(0.0, 0.0), (1.0, 0.0)], np.stack([x, top], axis=1)])


def _round_crown(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(0, 1 - (2 * x - 1) ** 2))


def _pointed_crown(x: np.ndarray) -> np.ndarray:
    far = np.maximum(x, 1 - x)
    return np.sqrt(np.maximum(0, 1 - far**2)) / np.sqrt(0.75)


def _disc() -> Polygon:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _within(polygon: Polygon, x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return np.array([x0, y0]) + polygon * np.array([x1 - x0, y1 - y0])


_ARCH = _crowned(0.6, _round_crown)
_LANCET = _crowned(0.5, _pointed_crown)

# Each window or door is one or several panes in the unit square.
WINDOWS: dict[str, tuple[Polygon, ...]] = {
    "square": (_within(_SQUARE, 0.0, 0.1, 1.0, 0.8),),
    "tall": (_within(_SQUARE, 0.2, 0.0, 0.8, 1.0),),
    "arch": (_ARCH,),
    "lancet": (_LANCET,),
    "oculus": (_within(_disc(), 0.05, 0.1, 0.95, 0.9),),
    "twin": (_within(_ARCH, 0.0, 0.0, 0.44, 1.0), _within(_ARCH, 0.56, 0.0, 1.0, 1.0)),
    "triple": tuple(
        _within(_LANCET, left, 0.0, left + 0.28, height)
        for left, height in ((0.0, 0.75), (0.36, 1.0), (0.72, 0.75))
    ),
    "diamond": (np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]),),
    "slit": (_within(_SQUARE, 0.38, 0.05, 0.62, 0.95),),
    "ribbon": (_within(_SQUARE, -0.3, 0.25, 1.3, 0.7),),
}
DOORS: dict[str, tuple[Polygon, ...]] = {
    "arch": (_ARCH,),
    "lancet": (_LANCET,),
    "square": (_SQUARE,),
    "triple": tuple(
        _within(_ARCH, left, 0.0, left + width, height)
        for left, width, height in (
            (0.0, 0.27, 0.7),
            (0.33, 0.34, 1.0),
            (0.73, 0.27, 0.7),
        )
    ),
}
FRAMES = ("none", "plain", "gable", "sill", "shutters")
ORNAMENTS = ("checker", "zigzag", "dots", "lines", "arcade", "blocks")


def draw_window_or_door(
    texture: Texture,
    box: tuple[float, float, float, float],
    panes: tuple[Polygon, ...],
    trim: Colour,
    frame: str,
    glow: int = LIT,
) -> None:
    """Draws one window or door with its frame into a texture.

    Its box is x0, y0 (top), x1, y1 (bottom), in texels; the frame is one of FRAMES, of
    the colour `trim`; `glow` is channel 3 of the glass.
    """
    x0, y0, x1, y1 = box
    size = np.array([x1 - x0, y1 - y0])
    _draw_frame(texture, box, trim, frame)
    for pane in panes:
        points = np.array([x0, y1]) + pane * size * (1, -1)
        if frame != "none":
            middle = points.mean(axis=0)
            fill(texture, middle + (points - middle) * 1.0 + _outward(points), trim)
        glass = np.round(points).astype(np.int32)
        cv2.fillPoly(texture, [glass], (*GLASS, glow))
        # The lintel's shadow: windows look deep, not painted on.
        upper = np.minimum(points, [np.inf, points[:, 1].min() + 0.25 * np.ptp(points)])
        cv2.fillPoly(
            texture, [np.round(upper).astype(np.int32)], (*shade(GLASS, 0.5), glow)
        )


def _outward(points: Polygon) -> Polygon:
    """Moves corners 1.5 texels away from the middle along both axes."""
    return 1.5 * np.sign(points - points.mean(axis=0))


def _draw_frame(
    texture: Texture,
    box: tuple[float, float, float, float],
    trim: Colour,
    frame: str,
) -> None:
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if frame == "gable":
        tip = ((x0 + x1) / 2, y0 - 0.3 * width)
        roof = np.array([(x0 - 0.2 * width, y0), tip, (x1 + 0.2 * width, y0)])
        fill(texture, roof - (0, 1), trim)
    elif frame == "sill":
        sill = _within(_SQUARE, x0 - 2, y1, x1 + 2, y1 + 0.12 * height + 1)
        fill(texture, sill, trim)
    elif frame == "shutters":
        for left in (x0 - 0.42 * width, x1 + 0.08 * width):
            leaf = _within(_SQUARE, left, y0, left + 0.34 * width, y1)
            fill(texture, leaf, shade(trim, 0.6))


def draw_ornament(
    texture: Texture, top: float, height: float, kind: str, light: Colour, dark: Colour
) -> None:
    """Draws a frieze, one of ORNAMENTS, over the whole width of a wall's texture.

    Its figures are dark on a light ground; `top` and `height` are in texels.
    """
    width = texture.shape[1]
    y0, y1 = int(top), int(top + height)
    if y1 <= y0:
        return
    texture[max(0, y0) : y1, :, :] = (*light, OPAQUE)
    count = max(1, round(width / height))
    step = width / count
    for i in range(count):
        for figure in _FIGURES[kind]:
            points = _within(figure, i * step, float(y1), (i + 1) * step, float(y0))
            fill(texture, points, dark)
    texture[y1 : y1 + 2, :, :3] //= 2  # its shadow on the wall below


_FIGURES: dict[str, tuple[Polygon, ...]] = {
    "checker": (
        _within(_SQUARE, 0.0, 0.0, 0.5, 0.5),
        _within(_SQUARE, 0.5, 0.5, 1.0, 1.0),
    ),
    "zigzag": (np.array([(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]),),
    "dots": (_within(_disc(), 0.2, 0.2, 0.8, 0.8),),
    "lines": (_within(_SQUARE, 0.0, 0.35, 1.0, 0.65),),
    "arcade": (_within(_ARCH, 0.15, 0.0, 0.85, 0.9),),
    "blocks": (_within(_SQUARE, 0.0, 0.0, 0.5, 1.0),),
}
