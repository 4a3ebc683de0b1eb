"""Textures of walls in a landmark's style: windows, doors, friezes, battlements."""

import cv2
import numpy as np

from tokret.data.synthetic_landmarks.materials import (
    GLASS,
    LIT,
    OPAQUE,
    fill,
    shade,
    surface,
)
from tokret.data.synthetic_landmarks.style import Style, texture_size
from tokret.data.synthetic_landmarks.windows_and_doors import (
    DOORS,
    WINDOWS,
    Texture,
    draw_ornament,
    draw_window_or_door,
)


def paint_wall(
    rng: np.random.Generator, style: Style, width: float, height: float, role: str
) -> Texture:
    """Paints a wall of a width and height in metres.

    The role "front" has the door and its crest, "side" windows alone, "back" few of
    them, "tower" the tower's material and windows, "blind" none. `rng` draws stains.
    """
    columns, rows = texture_size(width, height)
    tower = role == "tower"
    colour = style.accent if tower else style.wall
    pattern = style.tower_pattern if tower else style.pattern
    wall = surface(rng, rows, columns, colour, pattern)
    if role == "blind":
        return wall
    storeys = max(1, round(height / style.storey))
    bays = max(1, round(width / style.bay))
    if role in ("front", "side") and storeys > 1:
        _paint_ground_floor(wall, style, storeys)
    _paint_windows(wall, style, storeys, bays, role)
    _paint_friezes(wall, style, storeys, tower)
    if style.pilasters and role in ("front", "side"):
        _paint_pilasters(wall, style, bays)
    if role == "front":
        _paint_entrance(wall, style, storeys, bays)
    return wall


def _paint_ground_floor(wall: Texture, style: Style, storeys: int) -> None:
    top = int(wall.shape[0] * (1 - 1 / storeys))
    ratio = np.array(style.accent) / np.array(style.wall)
    wall[top:, :, :3] = np.clip(wall[top:, :, :3] * ratio, 0, 255)


def _paint_windows(
    wall: Texture, style: Style, storeys: int, bays: int, role: str
) -> None:
    height, width = wall.shape[:2]
    across, up = width / bays, height / storeys
    margin_x, margin_y = across * (1 - style.fill[0]) / 2, up * (1 - style.fill[1]) / 2
    for storey in range(storeys):
        kind = style.windows[min(storey, len(style.windows) - 1)]
        if role == "tower":
            kind = style.tower_window
        bottom = height - storey * up
        for bay in range(bays):
            if role == "back" and (bay + storey) % 2:
                continue
            # At night about two of three windows are lit, always the same ones.
            glow = LIT if (bay * 7 + storey * 3) % 5 < 3 else OPAQUE
            box = (
                bay * across + margin_x,
                bottom - up + margin_y,
                (bay + 1) * across - margin_x,
                bottom - margin_y,
            )
            panes = WINDOWS[kind]
            draw_window_or_door(wall, box, panes, style.trim, style.frame, glow)


def _paint_friezes(wall: Texture, style: Style, storeys: int, tower: bool) -> None:
    height = wall.shape[0]
    band = max(3.0, min(0.12 * height, 9.0))
    dark = shade(style.wall, 0.55)
    if style.friezes[0]:
        draw_ornament(wall, 0.0, band, style.friezes[0], style.trim, dark)
    else:
        wall[: max(2, int(band / 3)), :, :3] = shade(style.trim, 0.9)
    if style.friezes[1] and storeys > 1 and not tower:
        top = height * (1 - 1 / storeys) - band / 2
        kind = style.friezes[1]
        draw_ornament(wall, top, band * 0.8, kind, dark, style.trim)


def _paint_pilasters(wall: Texture, style: Style, bays: int) -> None:
    height, width = wall.shape[:2]
    thickness = max(2, int(0.1 * width / bays))
    for bay in range(bays + 1):
        x = min(int(bay * width / bays) - thickness // 2, width - thickness)
        x = max(0, x)
        wall[:, x : x + thickness, :] = (*style.trim, OPAQUE)
        wall[:, x + thickness : x + thickness + 1, :3] //= 2


def _paint_entrance(wall: Texture, style: Style, storeys: int, bays: int) -> None:
    """Paints the door in the middle of the ground floor, and the crest above it."""
    height, width = wall.shape[:2]
    up = height / storeys
    half = min(0.24 * width, 0.62 * width / bays, 0.55 * up)
    tall = min(0.92 * up, 3 * half) if storeys > 1 else min(0.62 * up, 3 * half)
    middle = width / 2
    box = (middle - half, height - tall, middle + half, float(height))
    left, right, top = middle - 1.3 * half, middle + 1.3 * half, height - tall - 3
    around = np.array([(left, height), (left, top), (right, top), (right, height)])
    fill(wall, around, style.trim)
    panes = DOORS[style.door]
    draw_window_or_door(wall, box, panes, shade(style.trim, 0.6), "plain", OPAQUE)
    radius = int(min(1.1 * half, 0.3 * top, 0.3 * width))
    if style.crest and radius >= 3:
        _paint_crest(wall, style, (int(middle), int(top - 1.4 * radius)), radius)


def _paint_crest(
    wall: Texture, style: Style, centre: tuple[int, int], radius: int
) -> None:
    trim = (*style.trim, OPAQUE)
    glass = (*GLASS, LIT)
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
        panes = WINDOWS["arch"]
        draw_window_or_door(wall, box, panes, style.trim, "plain", OPAQUE)
        cv2.ellipse(wall, (x, y + radius // 4), (max(1, radius // 3), radius - 1),
                    0, 0, 360, trim, -1)  # fmt: skip
    else:
        shield = np.array([(-1, -1), (1, -1), (1, 0.3), (0, 1.2), (-1, 0.3)]) * radius
        fill(wall, shield + centre, style.trim)
        fill(wall, shield * 0.7 + centre, (150, 60, 50))
        cv2.line(wall, (x - radius // 2, y), (x + radius // 2, y), trim, 2)


def pierce(
    wall: Texture, style: Style, role: str, width: float, height: float
) -> Texture:
    """Cuts holes into a copy of a bare wall of a width and height in metres.

    The role "screen" cuts an arcade of the door's shape, "arch" one wide opening,
    "columns" leaves round columns and a beam, "battlement" leaves merlons.
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
    panes, fraction = DOORS[style.door], 0.72
    if role == "arch":
        # Nothing hangs in the air: one opening of one pane.
        bays, across, fraction = 1, float(columns), 0.92
        panes = panes if len(panes) == 1 else DOORS["arch"]
    for bay in range(bays):
        for pane in panes:
            low = (bay + (1 - fraction) / 2) * across
            size = np.array([fraction * across, rows - top])
            points = np.array([low, rows]) + pane * size * (1, -1)
            frame = points + 1.5 * np.sign(points - points.mean(axis=0))
            fill(pierced, frame, style.trim)
            hole = np.round(points).astype(np.int32)
            cv2.fillPoly(pierced, [hole], (*GLASS, 0))
    return pierced
