"""Textures of walls in a landmark's style: windows, friezes, arcades, battlements."""

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import materials, windows_and_doors
from tokret.data.synthetic_landmarks.entrances import paint_entrance
from tokret.data.synthetic_landmarks.materials import OPAQUE, shade
from tokret.data.synthetic_landmarks.style import Style, texture_size
from tokret.shapes import UInt8


def paint_wall(
    rng: np.random.Generator, style: Style, width: float, height: float, role: str
) -> UInt8[np.ndarray, "h w 4"]:
    """Paints a wall.

    Args:
      rng: draws stains.
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
    wall = materials.surface(rng, rows, columns, colour, pattern)
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
            glow = materials.LIT if (bay * 7 + storey * 3) % 5 < 3 else OPAQUE
            box = (
                bay * across + margin_x,
                bottom - up + margin_y,
                (bay + 1) * across - margin_x,
                bottom - margin_y,
            )
            panes = windows_and_doors.WINDOWS[kind]
            windows_and_doors.draw_window_or_door(
                wall, box, panes, style.trim, style.frame, glow
            )


def _paint_friezes(
    wall: UInt8[np.ndarray, "h w 4"], style: Style, storeys: int, tower: bool
) -> None:
    height = wall.shape[0]
    band = max(3.0, min(0.12 * height, 9.0))
    dark = shade(style.wall, 0.55)
    if style.friezes[0]:
        windows_and_doors.draw_ornament(
            wall, 0.0, band, style.friezes[0], style.trim, dark
        )
    else:
        wall[: max(2, int(band / 3)), :, :3] = shade(style.trim, 0.9)
    if style.friezes[1] and storeys > 1 and not tower:
        top = height * (1 - 1 / storeys) - band / 2
        kind = style.friezes[1]
        windows_and_doors.draw_ornament(wall, top, band * 0.8, kind, dark, style.trim)


def _paint_pilasters(wall: UInt8[np.ndarray, "h w 4"], style: Style, bays: int) -> None:
    height, width = wall.shape[:2]
    thickness = max(2, int(0.1 * width / bays))
    for bay in range(bays + 1):
        x = min(int(bay * width / bays) - thickness // 2, width - thickness)
        x = max(0, x)
        wall[:, x : x + thickness, :] = (*style.trim, OPAQUE)
        wall[:, x + thickness : x + thickness + 1, :3] //= 2


def pierce(
    wall: UInt8[np.ndarray, "h w 4"],
    style: Style,
    role: str,
    width: float,
    height: float,
) -> UInt8[np.ndarray, "h w 4"]:
    """Cuts holes into a bare wall.

    Args:
      wall: its texture, which is copied.
      style: of the landmark.
      role: "screen" cuts an arcade of the door's shape, "arch" one wide opening,
        "columns" leaves round columns and a beam, "battlement" leaves merlons.
      width: in metres.
      height: in metres.
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
    panes, fraction = windows_and_doors.DOORS[style.door], 0.72
    if role == "arch":
        # Nothing hangs in the air: one opening of one pane.
        bays, across, fraction = 1, float(columns), 0.92
        panes = panes if len(panes) == 1 else windows_and_doors.DOORS["arch"]
    for bay in range(bays):
        for pane in panes:
            low = (bay + (1 - fraction) / 2) * across
            size = np.array([fraction * across, rows - top])
            points = np.array([low, rows]) + pane * size * (1, -1)
            frame = points + 1.5 * np.sign(points - points.mean(axis=0))
            materials.fill(pierced, frame, style.trim)
            hole = np.round(points).astype(np.int32)
            cv2.fillPoly(pierced, [hole], (*materials.GLASS, 0))
    return pierced
