"""How a photo is taken: viewpoint, light, weather, and what hides the landmark."""

from dataclasses import dataclass

import numpy as np

from tokret.data.synthetic_landmarks.building_designs import Landmark
from tokret.data.synthetic_landmarks.camera import Camera, look_at, project
from tokret.data.synthetic_landmarks.style import pick

LIGHTS = ("sun", "golden", "overcast", "fog", "dusk", "night")
CORRECTIONS = 4
ASPECTS = (4 / 3, 3 / 2, 16 / 9, 1.2)
KINDS = ("clear", "easy", "hard", "night", "junk")


@dataclass(frozen=True)
class Shot:
    """The plan of one photo."""

    # where the photographer stands, degrees; 0 before the front, positive to the right
    # of it
    azimuth: float
    rise: float  # above eye level, as a fraction of the landmark's height
    # fraction of the photo's width or height that the landmark shall cover, in its
    # tighter direction; above 1 it is cut off
    fill: float
    field: float  # angle of view along the longest side, degrees
    # of the landmark's middle from the photo's: x and y, as fractions of its sides
    shift: tuple[float, float]
    roll: float  # of the camera, degrees
    portrait: bool  # whether the photo is higher than wide
    aspect: float  # longest side over shortest
    light: str  # one of LIGHTS
    crowd: int  # things between photographer and landmark


@dataclass(frozen=True)
class _Range:
    """The ranges that a kind of photo is drawn from."""

    azimuth: float  # largest deviation from the middle of the side, degrees; uniform
    fill: tuple[float, float]  # smallest and largest
    shift: float  # largest, either way
    roll: float  # standard deviation in degrees
    lights: tuple[float, ...]  # each with its probability, in the order of LIGHTS
    crowd: int  # most things in the way


# A clear photo is easy and a night photo hard for any clear query: no two clear ones
# are further apart than relevance.EASY_TURN, and nothing hides the landmark.
_RANGES = {
    "clear": _Range(21.0, (0.8, 0.97), 0.02, 1.0, (0.5, 0.2, 0.3, 0.0, 0.0, 0.0), 0),
    "easy": _Range(32.0, (0.7, 1.08), 0.05, 2.0, (0.4, 0.2, 0.3, 0.0, 0.1, 0.0), 1),
    "hard": _Range(58.0, (0.6, 1.2), 0.09, 3.0, (0.3, 0.2, 0.22, 0.1, 0.14, 0.04), 2),
    "night": _Range(21.0, (0.6, 1.0), 0.04, 2.0, (0.0, 0.0, 0.0, 0.0, 0.0, 1.0), 0),
    "junk": _Range(
        75.0, (0.14, 0.8), 0.45, 5.0, (0.25, 0.15, 0.2, 0.15, 0.1, 0.15), 12
    ),
}
# Junk is mostly the other side of the building, else small, cut or hidden.
_BACK = 0.6


def plan_photo(rng: np.random.Generator, kind: str, landmark: Landmark) -> Shot:
    """Draws the plan of a photo.

    Its label follows from what is rendered, not from `kind` (one of KINDS); the shape
    of the landmark decides how likely a portrait is.
    """
    ranges = _RANGES[kind]
    weights = np.array(ranges.lights)
    behind = 180.0 if kind == "junk" and rng.random() < _BACK else 0.0
    tall = landmark.height / max(landmark.width, landmark.depth)
    # Mostly near the ground; some photos from a hill or a drone.
    rise = rng.uniform(0, 0.1) if rng.random() < 0.8 else rng.uniform(0.2, 0.7)
    return Shot(
        azimuth=behind + float(rng.uniform(-1, 1) * ranges.azimuth),
        rise=float(rise),
        fill=float(rng.uniform(*ranges.fill)),
        field=float(rng.uniform(35, 68)),
        shift=(
            float(rng.uniform(-1, 1) * ranges.shift),
            float(rng.uniform(-1, 1) * ranges.shift),
        ),
        roll=float(rng.normal(0, ranges.roll)),
        portrait=bool(rng.random() < np.clip(0.9 * tall - 0.25, 0.12, 0.85)),
        aspect=float(pick(rng, ASPECTS)),
        light=LIGHTS[int(rng.choice(len(LIGHTS), p=weights / sum(ranges.lights)))],
        crowd=int(rng.integers(ranges.crowd + 1)),
    )


def photo_size(shot: Shot, longest_side: int) -> tuple[int, int]:
    """Width and height of a photo in pixels."""
    shortest = max(16, round(longest_side / shot.aspect))
    return (shortest, longest_side) if shot.portrait else (longest_side, shortest)


def place_camera(shot: Shot, landmark: Landmark, size: tuple[int, int]) -> Camera:
    """Places the camera so that the landmark covers the planned part of the photo.

    It is at least a few metres from the landmark's walls; `size` is the photo's width
    and height in pixels.
    """
    width, height = size
    focal = max(size) / 2 / np.tan(np.radians(shot.field) / 2)
    angle = np.radians(shot.azimuth)
    reach = np.hypot(landmark.width, landmark.depth) / 2
    distance = 4 * (reach + landmark.height)
    principal = (
        width * (0.5 + shot.shift[0]) - 0.5,
        height * (0.5 + shot.shift[1]) - 0.5,
    )
    # Size is about inverse to distance: a few corrections reach the planned one.
    for _ in range(CORRECTIONS):
        away = np.array([np.sin(angle), -np.cos(angle)]) * distance
        eye = 1.7 + shot.rise * landmark.height
        centre = np.array([*away, eye])
        target = np.array([0.0, 0.0, landmark.height * 0.48])
        rotation = look_at(centre, target, np.radians(shot.roll))
        camera = Camera(centre, rotation, float(focal), principal, width, height)
        pixels, _ = project(camera, landmark.mesh.corners)
        across, along = np.ptp(pixels, axis=(0, 1))
        fraction = max(across / width, along / height)
        distance = max(distance * fraction / shot.fill, 1.25 * reach + 3.0)
    return camera
