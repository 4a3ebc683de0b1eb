"""The parts of buildings: houses, towers, roofs, porticos."""

import numpy as np

from tokret.data.synthetic_landmarks.meshes import MeshBuilder, Point, rectangle, ring
from tokret.data.synthetic_landmarks.style import pick

SIDES = ("front", "side", "back", "side")


def _onion(t: float) -> float:
    return max(0.02, (1 + 0.9 * np.sin(np.pi * min(1.0, 1.5 * t))) * (1 - t) ** 0.8)


def _half_sphere(t: float) -> float:
    return max(0.02, float(np.sqrt(1 - t * t)))


def _bell(t: float) -> float:
    return max(0.02, float((1 - t) ** 1.8 + 0.15 * (1 - t)))


PROFILES = (_half_sphere, _onion, _bell)


def add_roof(builder: MeshBuilder, foot: list[Point], z: float, kind: str) -> None:
    """Closes a tower: "spire", "dome" or "battlements"; any other kind is flat."""
    span = float(np.ptp(np.array(foot)[:, 0]))
    if kind == "spire":
        builder.prism(
            foot, z, z + span * builder.rng.uniform(0.9, 2.2), ("roof",), top=0.0
        )
    elif kind == "dome":
        profile = pick(builder.rng, PROFILES)
        builder.dome(foot, z, span * builder.rng.uniform(0.6, 1.0), profile)
    elif kind == "battlements":
        builder.battlements(foot, z, max(1.2, 0.14 * span))


def add_tower(
    builder: MeshBuilder, at: Point, span: float, height: float, kind: tuple[int, str]
) -> None:
    """A tower of a span of metres; kind: number of sides, roof."""
    sides, roof = kind
    x, y = at
    half = span / 2
    if sides == 4:
        foot = rectangle(x - half, x + half, y - half, y + half)
    else:
        foot = ring(x, y, half, sides)
    builder.prism(foot, 0.0, height, ("tower",))
    add_roof(builder, foot, height, roof)


def tower_kind(rng: np.random.Generator) -> tuple[int, str]:
    """Draws how many sides a tower has, and its roof."""
    roofs = ("spire", "dome", "battlements", "flat")
    return int(rng.choice([4, 4, 6, 8])), pick(rng, roofs)


def add_house(
    builder: MeshBuilder,
    sides: tuple[float, float, float, float],
    height: float,
    roofs: tuple[str, ...],
) -> None:
    """A rectangular house x0, x1, y0, y1 with one of the roofs."""
    foot = rectangle(*sides)
    span = min(sides[1] - sides[0], sides[3] - sides[2])
    builder.prism(foot, 0.0, height, SIDES)
    kind = pick(builder.rng, roofs)
    rise = span * builder.rng.uniform(0.3, 0.65)
    if kind == "gable":
        builder.gable(*sides, height, rise)
    elif kind == "across":
        builder.gable(*sides, height, rise, across=True)
    elif kind == "hip":
        builder.prism(
            foot, height, height + rise, ("roof",), top=builder.rng.uniform(0.2, 0.6)
        )
    else:
        add_roof(builder, foot, height, kind)


def add_portico(builder: MeshBuilder, width: float, height: float) -> None:
    """Columns or arches in front of the origin, under a gable or a flat roof."""
    out = -4.0
    role = pick(builder.rng, ("columns", "screen"))
    half = width / 2
    builder.face([(-half, out, 0.0), (half, out, 0.0), (half, out, height),
                (-half, out, height)], role)  # fmt: skip
    for x, ends in ((half, (out, 0.0)), (-half, (0.0, out))):
        a, b = ends
        builder.face([(x, a, 0.0), (x, b, 0.0), (x, b, height), (x, a, height)], role)
    if builder.rng.random() < 0.6:
        builder.gable(-half, half, out, 0.0, height, width * 0.22)
    else:
        builder.prism(
            rectangle(-half, half, out, 0.0), height, height + 1.2, ("blind",)
        )
