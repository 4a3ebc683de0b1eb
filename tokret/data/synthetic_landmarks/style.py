"""The style of a landmark: the colours, materials and windows of its walls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tokret.data.synthetic_landmarks import materials, windows_and_doors
from tokret.data.synthetic_landmarks.materials import Colour, shade

T = TypeVar("T")

TEXELS_PER_METRE = 8.0
LONGEST_TEXTURE = 360  # texels; larger walls are painted more coarsely


@dataclass(frozen=True)
class Style:
    """The common features of one landmark's walls."""

    wall: Colour  # colour of the main walls
    accent: Colour  # colour of the ground floor, the towers or the stripes
    trim: Colour  # colour of frames, cornices and pilasters
    roof: Colour  # colour of the roofs
    pattern: str  # material of the walls
    tower_pattern: str  # material of the towers
    roof_pattern: str  # material of the roofs
    # kinds of window from the ground floor up; the last one repeats
    windows: tuple[str, ...]
    tower_window: str  # kind of window of the towers
    frame: str  # around the windows
    door: str  # kind of door
    # fractions of its bay that a window covers, across and up
    fill: tuple[float, float]
    bay: float  # width of a bay in metres
    storey: float  # height of a storey in metres
    pilasters: bool  # whether strips separate the bays
    # ornament under the eaves, and above the ground floor; "" for none
    friezes: tuple[str, str]
    crest: str  # over the door: "", "rose", "clock", "niche", "arms"


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draws one of some options."""
    return options[int(rng.integers(len(options)))]


def invent_style(rng: np.random.Generator) -> Style:
    """Draws a style from the catalogues."""
    kinds = tuple(windows_and_doors.WINDOWS)
    wall = pick(rng, materials.WALLS)
    ornaments = (*windows_and_doors.ORNAMENTS, "")
    pattern = pick(rng, materials.PATTERNS)
    return Style(
        wall=wall,
        accent=shade(wall, 0.75) if rng.random() < 0.5 else pick(rng, materials.WALLS),
        trim=pick(rng, materials.TRIMS),
        roof=pick(rng, materials.ROOFS),
        pattern=pattern,
        tower_pattern=pattern if rng.random() < 0.5 else pick(rng, materials.PATTERNS),
        roof_pattern=pick(rng, materials.ROOF_PATTERNS),
        windows=tuple(pick(rng, kinds) for _ in range(3)),
        tower_window=pick(rng, kinds),
        frame=pick(rng, windows_and_doors.FRAMES),
        door=pick(rng, tuple(windows_and_doors.DOORS)),
        fill=(float(rng.uniform(0.35, 0.7)), float(rng.uniform(0.5, 0.78))),
        bay=float(rng.uniform(3.0, 6.0)),
        storey=float(rng.uniform(3.8, 7.0)),
        pilasters=bool(rng.random() < 0.45),
        friezes=(pick(rng, ornaments), pick(rng, ornaments)),
        crest=pick(rng, ("", "rose", "clock", "niche", "arms")),
    )


def texture_size(width: float, height: float) -> tuple[int, int]:
    """Texels across and down for a wall of so many metres."""
    scale = min(TEXELS_PER_METRE, LONGEST_TEXTURE / max(width, height))
    return max(8, round(width * scale)), max(8, round(height * scale))
