"""Doors with what stands above them, and walls with holes: arcades, battlements."""

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import openings, palette
from tokret.data.synthetic_landmarks.palette import OPAQUE, shade
from tokret.data.synthetic_landmarks.style import Style
from tokret.shapes import UInt8


def paint_entrance(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int, bays: int
) -> None:
    """The door in the middle of the ground floor and what stands above it."""
    height, width = wall.shape[:2]
    up = height / storeys
    half = min(0.24 * width, 0.62 * width / bays, 0.55 * up)
    tall = min(0.92 * up, 3 * half) if storeys > 1 else min(0.62 * up, 3 * half)
    middle = width / 2
    box = (middle - half, height - tall, middle + half, float(height))
    around = np.array(
        [
            (middle - 1.3 * half, height),
            (middle - 1.3 * half, height - tall - 3),
            (middle + 1.3 * half, height - tall - 3),
            (middle + 1.3 * half, height),
        ]
    )
    palette.fill(wall, around, style.trim)
    panes = openings.DOORS[style.door]
    openings.draw_opening(wall, box, panes, shade(style.trim, 0.6), "plain", OPAQUE)
    above = height - tall - 3
    radius = int(min(1.1 * half, 0.3 * above, 0.3 * width))
    if style.crest and radius >= 3:
        _paint_crest(wall, style, (int(middle), int(above - 1.4 * radius)), radius)


def _paint_crest(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, centre: tuple[int, int], radius: int
) -> None:
    trim = (*style.trim, OPAQUE)
    glass = (*palette.GLASS, palette.LIT)
    x, y = centre
    if style.crest in ("rose", "clock"):
        cv2.circle(wall, centre, radius + 2, trim, -1)
        inner = glass if style.crest == "rose" else (*shade(style.trim, 1.15), OPAQUE)
        cv2.circle(wall, centre, max(2, radius - 1), inner, -1)
        hands = 8 if style.crest == "rose" else 2
        ink = trim if style.crest == "rose" else (40, 36, 34, OPAQUE)
        for i in range(hands):
            angle = 2 * np.pi * i / max(hands, 3) + 0.4
            tip = (x + int(radius * np.sin(angle)), y - int(radius * np.cos(angle)))
            cv2.line(wall, centre, tip, ink, 1 if hands > 2 else 2)
    elif style.crest == "niche":
        box = (x - 0.7 * radius, y - 1.2 * radius, x + 0.7 * radius, y + 1.2 * radius)
        panes = openings.WINDOWS["arch"]
        openings.draw_opening(wall, box, panes, style.trim, "plain", OPAQUE)
        cv2.ellipse(wall, (x, y + radius // 4), (max(1, radius // 3), radius - 1),
                    0, 0, 360, trim, -1)  # fmt: skip
    else:
        shield = np.array([(-1, -1), (1, -1), (1, 0.3), (0, 1.2), (-1, 0.3)]) * radius
        palette.fill(wall, shield + centre, style.trim)
        palette.fill(wall, shield * 0.7 + centre, (150, 60, 50))
        cv2.line(wall, (x - radius // 2, y), (x + radius // 2, y), trim, 2)


def pierce(
    wall: UInt8[np.ndarray, "h w 4"],
    style: Style,
    role: str,
    width: float,
    height: float,
) -> UInt8[np.ndarray, "h w 4"]:
    """Cuts holes into a bare wall.

    Args:
      wall: is copied.
      style: of the landmark.
      role: "screen" cuts an arcade of the door's shape, "arch" one wide opening,
        "columns" leaves round columns and a beam, "battlement" leaves merlons.
      width: in metres.
      height: in metres.

    Returns:
      The pierced wall.
    """
    pierced = wall.copy()
    rows, columns = wall.shape[:2]
    if role == "battlement":
        count = max(2, round(width / 1.6))
        column = (np.arange(columns) * (2 * count + 1)) // columns
        pierced[: int(0.55 * rows), column % 2 == 1, 3] = 0
        return pierced
    bays = max(1, round(width / min(style.bay, 0.8 * height)))
    across = columns / bays
    top = 0.16 * rows
    if role == "columns":
        bays += 1
        across = columns / bays
        pierced[..., :3] = style.trim
        phase = (np.arange(columns) % across) / across
        round_shade = 1 - 0.5 * np.abs(phase - 0.5) / 0.2
        shaded = pierced[..., :3] * np.clip(round_shade, 0.5, 1)[None, :, None]
        pierced[int(top) :, :, :3] = shaded[int(top) :]
        pierced[int(top) :, np.abs(phase - 0.5) > 0.2, 3] = 0
        return pierced
    panes, share = openings.DOORS[style.door], 0.72
    if role == "arch":
        # Nothing hangs in the air: one opening of one pane.
        bays, across, share = 1, float(columns), 0.92
        panes = panes if len(panes) == 1 else openings.DOORS["arch"]
    for bay in range(bays):
        for pane in panes:
            low = (bay + (1 - share) / 2) * across
            size = np.array([share * across, rows - top])
            points = np.array([low, rows]) + pane * size * (1, -1)
            frame = points + 1.5 * np.sign(points - points.mean(axis=0))
            palette.fill(pierced, frame, style.trim)
            hole = np.round(points).astype(np.int32)
            cv2.fillPoly(pierced, [hole], (*palette.GLASS, 0))
    return pierced
