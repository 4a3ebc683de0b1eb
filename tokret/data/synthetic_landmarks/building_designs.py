"""Landmarks: church, palace, keep, temple and so on, from a random generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tokret.data.synthetic_landmarks.building_parts import (
    PROFILES,
    SIDES,
    add_house,
    add_portico,
    add_roof,
    add_tower,
    tower_kind,
)
from tokret.data.synthetic_landmarks.meshes import Mesh, MeshBuilder, rectangle, ring
from tokret.data.synthetic_landmarks.style import invent_style, pick


@dataclass(frozen=True)
class Landmark:
    """A building on the ground around the origin, its front towards -y; in metres."""

    mesh: Mesh
    width: float
    depth: float
    height: float


def design(rng: np.random.Generator) -> Landmark:
    """Designs a landmark; the same generator state gives the same building."""
    builder = MeshBuilder(rng, invent_style(rng))
    pick(rng, _DESIGNS)(builder)
    mesh = builder.finish()
    low, high = mesh.corners.min(axis=(0, 1)), mesh.corners.max(axis=(0, 1))
    width, depth, height = (high - [low[0], low[1], 0.0]).tolist()
    return Landmark(mesh, width, depth, height)


def _church(builder: MeshBuilder) -> None:
    rng = builder.rng
    width, length = rng.uniform(12, 20), rng.uniform(22, 36)
    height = rng.uniform(9, 16)
    sides = (-width / 2, width / 2, -length / 2, length / 2)
    add_house(builder, sides, height, ("gable",))
    kind, span = tower_kind(rng), width * rng.uniform(0.3, 0.45)
    tall = height * rng.uniform(1.4, 2.6)
    y = -length / 2 + span * rng.uniform(0.0, 0.4)
    places = int(rng.integers(4))
    if places == 0:
        add_tower(builder, (0.0, -length / 2), span, tall, kind)
    if places in (1, 3):
        add_tower(builder, (-width / 2, y), span, tall, kind)
    if places in (1, 2):
        shorter = tall * (1.0 if rng.random() < 0.6 else 0.75)
        add_tower(builder, (width / 2, y), span, shorter, kind)
    if rng.random() < 0.5:
        reach = width * rng.uniform(0.75, 1.1)
        cross = (-reach, reach, 0.0, width * 0.6)
        add_house(builder, cross, height * 0.85, ("across",))
    if rng.random() < 0.4:
        add_tower(builder, (0.0, length * 0.15), width * 0.5, height * 1.7, (8, "dome"))


def _palace(builder: MeshBuilder) -> None:
    rng = builder.rng
    width, depth = rng.uniform(30, 46), rng.uniform(12, 18)
    height = rng.uniform(9, 18)
    roofs = ("hip", "across", "battlements", "flat")
    add_house(builder, (-width / 2, width / 2, 0.0, depth), height, roofs)
    part = width * rng.uniform(0.2, 0.4) / 2
    centre = (-part, part, -rng.uniform(2, 4), depth * 0.8)
    add_house(builder, centre, height * rng.uniform(1.1, 1.5), ("gable", "hip", "dome"))
    ends = int(rng.integers(3))
    kind = tower_kind(rng)
    for side in (-1, 1):
        x = side * (width / 2 - 1)
        if ends == 1:
            wing = (x - 3.5, x + 3.5, -rng.uniform(4, 9), depth)
            add_house(builder, wing, height, ("gable", "hip"))
        elif ends == 2:
            add_tower(builder, (x, 1.0), 7.5, height * 1.35, kind)
    if rng.random() < 0.35:
        add_tower(builder, (0.0, depth / 2), part, height * 2.2, tower_kind(rng))


def _keep(builder: MeshBuilder) -> None:
    rng = builder.rng
    span, height = rng.uniform(9, 15), rng.uniform(24, 44)
    base = span * rng.uniform(0.9, 1.6)
    add_house(builder, (-base, base, -span * 0.7, span * 0.9), height * 0.25,
           ("battlements", "flat", "hip"))  # fmt: skip
    sides, roof = tower_kind(rng)
    x = rng.choice([-0.5, 0.0, 0.5]) * base
    cut = rng.uniform(0.55, 0.8)
    add_tower(builder, (x, 0.0), span, height * cut, (sides, "flat"))
    foot = ring(x, 0.0, span * rng.uniform(0.3, 0.62), 8 if sides == 4 else sides)
    builder.prism(foot, height * cut, height, ("tower",))
    add_roof(builder, foot, height, roof)


def _temple(builder: MeshBuilder) -> None:
    rng = builder.rng
    width, depth = rng.uniform(20, 30), rng.uniform(18, 26)
    height = rng.uniform(8, 13)
    add_house(builder, (-width / 2, width / 2, 0.0, depth), height, ("flat",))
    drum = width * rng.uniform(0.22, 0.36)
    sides = int(rng.choice([8, 10, 12]))
    foot = ring(0.0, depth / 2, drum, sides)
    top = height + rng.uniform(3, 7)
    builder.prism(foot, height, top, ("tower",), cap=False)
    profile = pick(rng, PROFILES)
    builder.dome(foot, top, drum * rng.uniform(0.9, 1.6), profile, steps=5)
    if rng.random() < 0.7:
        add_portico(builder, width * rng.uniform(0.4, 0.9), height * 0.85)
    if rng.random() < 0.5:
        tall = height * rng.uniform(1.8, 3.2)
        kind = (6, ("spire", "dome")[int(rng.integers(2))])
        for x in (-width / 2 - 1, width / 2 + 1):
            add_tower(builder, (x, 1.0), rng.uniform(2.6, 4.5), tall, kind)


def _blocks(builder: MeshBuilder) -> None:
    """A modern building of boxes, stacked and shifted."""
    rng = builder.rng
    span, z = rng.uniform(16, 26), 0.0
    x = 0.0
    for _ in range(int(rng.integers(2, 5))):
        width, depth = span * rng.uniform(0.6, 1.2), span * rng.uniform(0.5, 0.8)
        height = rng.uniform(6, 14)
        foot = rectangle(x - width / 2, x + width / 2, -depth / 2, depth / 2)
        builder.prism(foot, z, z + height, SIDES)
        z += height
        x += rng.uniform(-0.25, 0.25) * width
        span *= rng.uniform(0.65, 1.0)
    if rng.random() < 0.5:
        add_roof(builder, ring(x, 0.0, span * 0.3, 6), z, "spire")


def _gate(builder: MeshBuilder) -> None:
    """Two piers and a beam, with the sky between them."""
    rng = builder.rng
    gap, pier = rng.uniform(6, 14), rng.uniform(5, 9)
    depth, height = rng.uniform(6, 10), rng.uniform(10, 20)
    half = gap / 2
    for x0, x1 in ((-half - pier, -half), (half, half + pier)):
        builder.prism(rectangle(x0, x1, 0.0, depth), 0.0, height, SIDES)
    beam = height + rng.uniform(4, 8)
    foot = rectangle(-half - pier, half + pier, 0.0, depth)
    builder.prism(foot, height, beam, ("side", "side"))
    for y in (0.1, depth - 0.1):
        builder.face([(-half, y, height * 0.35), (half, y, height * 0.35),
                    (half, y, height), (-half, y, height)], "arch")  # fmt: skip
    kind = int(rng.integers(4))
    roof = pick(rng, ("spire", "dome", "battlements"))
    if kind == 0:
        builder.gable(
            -half - pier, half + pier, 0.0, depth, beam, depth * 0.5, across=True
        )
    elif kind == 1:
        for x in (-half - pier / 2, half + pier / 2):
            top = ring(x, depth / 2, pier * 0.45, 8)
            builder.prism(top, beam, beam + 5, ("tower",))
            add_roof(builder, top, beam + 5, roof)
    elif kind == 2:
        foot = rectangle(-half, half, 0.5, depth - 0.5)
        builder.prism(foot, beam, beam + rng.uniform(4, 9), SIDES)
    else:
        builder.battlements(foot, beam, 1.6)


def _pagoda(builder: MeshBuilder) -> None:
    """Storeys that become smaller, each with a roof that leans out."""
    rng = builder.rng
    half, z = rng.uniform(8, 13), 0.0
    sides = int(rng.choice([4, 6, 8]))
    shrink, storey = rng.uniform(0.7, 0.88), rng.uniform(4, 6.5)
    eaves = rng.uniform(1.2, 1.5)
    for _ in range(int(rng.integers(3, 6))):
        foot = (
            rectangle(-half, half, -half, half) if sides == 4
            else ring(0.0, 0.0, half, sides)
        )  # fmt: skip
        builder.prism(foot, z, z + storey, ("front", "side"), cap=False)
        z += storey
        middle = np.mean(foot, axis=0)
        wide = [tuple(middle + eaves * (np.array(p) - middle)) for p in foot]
        builder.prism(wide, z, z + storey * 0.5, ("roof",), top=shrink / eaves)
        z += storey * 0.35
        half *= shrink
    add_roof(builder, foot, z, "spire")


def _castle(builder: MeshBuilder) -> None:
    rng = builder.rng
    half, depth = rng.uniform(14, 22), rng.uniform(18, 30)
    wall = rng.uniform(7, 11)
    foot = rectangle(-half, half, -depth / 2, depth / 2)
    builder.prism(foot, 0.0, wall, SIDES)
    builder.battlements(foot, wall, 1.4)
    sides, roof = tower_kind(rng)
    for x in (-half, half):
        for y in (-depth / 2, depth / 2):
            tall, span = wall * rng.uniform(1.1, 2.4), rng.uniform(5.5, 10)
            add_tower(builder, (x, y), span, tall, (sides, roof))
    if rng.random() < 0.7:
        x = rng.uniform(-0.5, 0.5) * half
        tall = wall * rng.uniform(2.0, 3.4)
        add_tower(builder, (x, 0.0), rng.uniform(8, 13), tall, tower_kind(rng))
    if rng.random() < 0.5:
        gate = (-3.5, 3.5, -depth / 2 - 3, -depth / 2 + 3)
        add_house(builder, gate, wall * 1.3, ("battlements", "hip", "gable"))


def _rotunda(builder: MeshBuilder) -> None:
    rng = builder.rng
    radius = rng.uniform(11, 17)
    sides = int(rng.choice([10, 12]))
    z = 0.0
    for _ in range(int(rng.integers(1, 4))):
        foot = ring(0.0, 0.0, radius, sides)
        height = rng.uniform(6, 11)
        if rng.random() < 0.4:
            inner = ring(0.0, 0.0, radius * 0.85, sides)
            builder.prism(inner, z, z + height, ("side",))
            builder.prism(foot, z, z + height, ("screen",))
        else:
            builder.prism(foot, z, z + height, ("front", "side"))
        z += height
        radius *= rng.uniform(0.65, 0.9)
    roof = pick(rng, ("dome", "spire", "battlements"))
    add_roof(builder, foot, z, roof)


_DESIGNS: tuple[Callable[[MeshBuilder], None], ...] = (
    *(_church, _palace, _keep, _temple, _blocks, _gate, _pagoda, _castle, _rotunda),
)
