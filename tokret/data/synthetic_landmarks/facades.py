"""Textures of walls, painted in a landmark's style."""

import numpy as np

from tokret.data.synthetic_landmarks import openings, palette
from tokret.data.synthetic_landmarks.entrances import paint_entrance
from tokret.data.synthetic_landmarks.palette import OPAQUE, shade
from tokret.data.synthetic_landmarks.style import Style, texture_size
from tokret.shapes import UInt8


def paint_wall(
    rng: np.random.Generator, style: Style, width: float, height: float, role: str
) -> UInt8[np.ndarray, "h w 4"]:
    """Paints a wall.

    Args:
      rng: decides stains.
      style: of the landmark.
      width: in metres.
      height: in metres.
      role: "front" has the door and its crest, "side" windows alone, "back" few of
        them, "tower" the tower's material and windows, "blind" none.

    Returns:
      [h, w, 4] uint8 texture.
    """
    columns, rows = texture_size(width, height)
    tower = role == "tower"
    colour = style.accent if tower else style.wall
    pattern = style.tower_pattern if tower else style.pattern
    wall = palette.surface(rng, rows, columns, colour, pattern)
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
        paint_entrance(wall, style, storeys, bays)
    return wall


def _paint_ground_floor(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int
) -> None:
    top = int(wall.shape[0] * (1 - 1 / storeys))
    ratio = np.array(style.accent) / np.array(style.wall)
    wall[top:, :, :3] = np.clip(wall[top:, :, :3] * ratio, 0, 255)


def _paint_windows(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int, bays: int, role: str
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
            glow = palette.LIT if (bay * 7 + storey * 3) % 5 < 3 else OPAQUE
            box = (
                bay * across + margin_x,
                bottom - up + margin_y,
                (bay + 1) * across - margin_x,
                bottom - margin_y,
            )
            panes = openings.WINDOWS[kind]
            openings.draw_opening(wall, box, panes, style.trim, style.frame, glow)


def _paint_friezes(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int, tower: bool
) -> None:
    height = wall.shape[0]
    band = max(3.0, min(0.12 * height, 9.0))
    dark = shade(style.wall, 0.55)
    if style.friezes[0]:
        openings.draw_ornament(wall, 0.0, band, style.friezes[0], style.trim, dark)
    else:
        wall[: max(2, int(band / 3)), :, :3] = shade(style.trim, 0.9)
    if style.friezes[1] and storeys > 1 and not tower:
        top = height * (1 - 1 / storeys) - band / 2
        kind = style.friezes[1]
        openings.draw_ornament(wall, top, band * 0.8, kind, dark, style.trim)


def _paint_pilasters(wall: UInt8[np.ndarray, "h w 4"], style: Style, bays: int) -> None:
    height, width = wall.shape[:2]
    thickness = max(2, int(0.1 * width / bays))
    for bay in range(bays + 1):
        x = min(int(bay * width / bays) - thickness // 2, width - thickness)
        x = max(0, x)
        wall[:, x : x + thickness, :] = (*style.trim, OPAQUE)
        wall[:, x + thickness : x + thickness + 1, :3] //= 2
