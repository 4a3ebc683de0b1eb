"""The entrance of a front wall: its door and the crest above."""

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import materials, windows_and_doors
from tokret.data.synthetic_landmarks.materials import OPAQUE, shade
from tokret.data.synthetic_landmarks.style import Style
from tokret.shapes import UInt8


def paint_entrance(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int, bays: int
) -> None:
    """Paints the door in the middle of the ground floor, and the crest above it."""
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
    materials.fill(wall, around, style.trim)
    panes = windows_and_doors.DOORS[style.door]
    windows_and_doors.draw_window_or_door(
        wall, box, panes, shade(style.trim, 0.6), "plain", OPAQUE
    )
    above = height - tall - 3
    radius = int(min(1.1 * half, 0.3 * above, 0.3 * width))
    if style.crest and radius >= 3:
        _paint_crest(wall, style, (int(middle), int(above - 1.4 * radius)), radius)


def _paint_crest(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, centre: tuple[int, int], radius: int
) -> None:
    trim = (*style.trim, OPAQUE)
    glass = (*materials.GLASS, materials.LIT)
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
        panes = windows_and_doors.WINDOWS["arch"]
        windows_and_doors.draw_window_or_door(
            wall, box, panes, style.trim, "plain", OPAQUE
        )
        cv2.ellipse(wall, (x, y + radius // 4), (max(1, radius // 3), radius - 1),
                    0, 0, 360, trim, -1)  # fmt: skip
    else:
        shield = np.array([(-1, -1), (1, -1), (1, 0.3), (0, 1.2), (-1, 0.3)]) * radius
        materials.fill(wall, shield + centre, style.trim)
        materials.fill(wall, shield * 0.7 + centre, (150, 60, 50))
        cv2.line(wall, (x - radius // 2, y), (x + radius // 2, y), trim, 2)
