"""Meshes of flat textured faces, and a builder of prisms, domes, gables, parapets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from tokret.data.synthetic_landmarks import facades, materials
from tokret.data.synthetic_landmarks.style import Style, texture_size
from tokret.shapes import Bool, Float, Int

# Metres. x to the right of the front, y away from the viewer of the front, z up.
Point = tuple[float, float]


@dataclass(frozen=True)
class Mesh:
    """Flat faces, each with its texture."""

    # [F, 4, 3] metres, around each face; a triangle repeats its last corner
    corners: Float[np.ndarray, "f 4 3"]
    # [F, 3, 3] columns: the step of one texel to the right, of one texel down, and the
    # texture's upper left corner; metres
    plane: Float[np.ndarray, "f 3 3"]
    normals: Float[np.ndarray, "f 3"]  # [F, 3] outward, length 1
    two_sided: Bool[np.ndarray, " f"]  # [F] seen from behind as well
    texture: Int[np.ndarray, " f"]  # [F] index into `textures`
    # by index, by level: [h, w, 4] uint8, each level half the one before
    textures: tuple[tuple[np.ndarray, ...], ...]


def join(meshes: list[Mesh]) -> Mesh:
    """Joins one or more meshes, in order."""
    first = np.cumsum([0] + [len(mesh.textures) for mesh in meshes[:-1]])
    numbered = [
        replace(mesh, texture=mesh.texture + start)
        for mesh, start in zip(meshes, first, strict=True)
    ]
    arrays = {
        name: np.concatenate([getattr(mesh, name) for mesh in numbered])
        for name in ("corners", "plane", "normals", "two_sided", "texture")
    }
    textures = tuple(texture for mesh in meshes for texture in mesh.textures)
    return Mesh(textures=textures, **arrays)


def moved(mesh: Mesh, x: float, y: float, turn: float) -> Mesh:
    """Turns a mesh about its vertical axis (radians), then moves it over the ground."""
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([(cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0)])
    plane = rotation @ mesh.plane
    plane[:, :, 2] += (x, y, 0.0)
    return replace(
        mesh,
        corners=mesh.corners @ rotation.T + (x, y, 0.0),
        plane=plane,
        normals=mesh.normals @ rotation.T,
    )


def levels(texture: np.ndarray) -> tuple[np.ndarray, ...]:
    """A texture and its mipmaps, for distant faces: sampling them does not flicker."""
    pyramid = [texture]
    while min(pyramid[-1].shape[:2]) >= 8 and len(pyramid) < 4:
        height, width = pyramid[-1].shape[:2]
        size = (width // 2, height // 2)
        pyramid.append(cv2.resize(pyramid[-1], size, interpolation=cv2.INTER_AREA))
    return tuple(pyramid)


def rectangle(x0: float, x1: float, y0: float, y1: float) -> list[Point]:
    """Footprint of a block, from the front left corner, front side first."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ring(x: float, y: float, radius: float, sides: int) -> list[Point]:
    """Footprint of a tower of many sides, one of them facing the front."""
    angles = -np.pi / 2 + 2 * np.pi * (np.arange(sides) - 0.5) / sides
    return [(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]


@dataclass
class MeshBuilder:
    """Builds the mesh of one landmark, face by face; `rng` draws stains."""

    rng: np.random.Generator
    style: Style
    # corners, plane, normal, two_sided and texture of each face, as in `Mesh`
    _faces: list[tuple[Any, ...]] = field(default_factory=list)
    _textures: list[np.ndarray] = field(default_factory=list)
    _known: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def finish(self) -> Mesh:
        """Returns the mesh."""
        columns = zip(*self._faces, strict=True)
        corners, plane, normals, two_sided, texture = map(np.array, columns)
        textures = tuple(levels(texture) for texture in self._textures)
        return Mesh(corners, plane, normals, two_sided, texture, textures)

    def face(self, corners: list[tuple[float, float, float]], role: str) -> None:
        """Adds a face of three or four corners.

        Args:
          corners: seen from outside: lower left, lower right, then around the face.
          role: of `facades.paint_wall`, or "roof", or "screen", "arch", "battlement",
            "columns", which have holes and are seen from both sides.
        """
        points = np.array(corners, np.float64)
        right = points[1] - points[0]
        right /= np.linalg.norm(right)
        normal = np.cross(right, points[2] - points[0])
        normal /= np.linalg.norm(normal)
        up = np.cross(normal, right)
        across, along = (points - points[0]) @ right, (points - points[0]) @ up
        width, height = np.ptp(across), np.ptp(along)
        texture = self._paint(role, float(width), float(height))
        rows, columns = self._textures[texture].shape[:2]
        corner = points[0] + across.min() * right + along.max() * up
        steps = (right * width / columns, -up * height / rows, corner)
        around, plane = points[[0, 1, 2, len(points) - 1]], np.stack(steps, axis=1)
        self._faces.append((around, plane, normal, role in _PIERCED, texture))

    def prism(
        self,
        footprint: list[Point],
        z0: float,
        z1: float,
        roles: tuple[str, ...],
        top: float = 1.0,
        cap: bool = True,
    ) -> None:
        """Adds walls over a footprint, from height z0 to z1.

        The footprint is counter-clockwise from above; `roles` are of its sides in
        order, the last one repeats. `top` is the size of the top relative to the
        footprint, 0 makes a spire; a flat roof, the cap, closes it.
        """
        middle = np.mean(footprint, axis=0)
        upper = [tuple(middle + top * (np.array(p) - middle)) for p in footprint]
        count = len(footprint)
        for i in range(count):
            a, b = footprint[i], footprint[(i + 1) % count]
            c, d = upper[(i + 1) % count], upper[i]
            corners = [(*a, z0), (*b, z0), (*c, z1)]
            if top > 0.01:
                corners.append((*d, z1))
            self.face(corners, roles[min(i, len(roles) - 1)])
        if cap and top > 0.01:
            for i in range(1, count - 1, 2):
                last = upper[(i + 2) % count]
                corners = [(*upper[0], z1), (*upper[i], z1), (*upper[i + 1], z1)]
                if i + 2 < count:
                    corners.append((*last, z1))
                self.face(corners, "roof")

    def dome(
        self,
        footprint: list[Point],
        z0: float,
        height: float,
        profile: Callable[[float], float],
        steps: int = 4,
    ) -> None:
        """Adds a roof that narrows by a profile: a dome, an onion, a bell.

        It has `steps` rings of faces; the profile is the relative radius at a relative
        height, 1 at 0.
        """
        middle = np.mean(footprint, axis=0)
        for step in range(steps):
            low, high = profile(step / steps), profile((step + 1) / steps)
            foot = [tuple(middle + low * (np.array(p) - middle)) for p in footprint]
            bottom, top = z0 + height * step / steps, z0 + height * (step + 1) / steps
            self.prism(foot, bottom, top, ("roof",), top=high / low, cap=False)

    def gable(
        self,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        z: float,
        rise: float,
        across: bool = False,
    ) -> None:
        """Adds a saddle roof whose ridge runs from front to back, or across that."""
        # From s0 to s1 across the ridge, and from t0 to t1 along it.
        (s0, s1), (t0, t1) = ((y0, y1), (x1, x0)) if across else ((x0, x1), (y0, y1))

        def at(s: float, t: float, z: float) -> tuple[float, float, float]:
            return (t, s, z) if across else (s, t, z)

        ridge, over, top = (s0 + s1) / 2, 0.4, z + rise
        self.face([at(s0, t0, z), at(s1, t0, z), at(ridge, t0, top)], "blind")
        self.face([at(s1, t1, z), at(s0, t1, z), at(ridge, t1, top)], "blind")
        near, far = (t0 + over, t1 - over) if across else (t0 - over, t1 + over)
        front, back = at(ridge, near, top), at(ridge, far, top)
        right = [at(s1 + over, near, z), at(s1 + over, far, z), back, front]
        left = [at(s0 - over, far, z), at(s0 - over, near, z), front, back]
        for slope in (left, right) if across else (right, left):
            self.face(slope, "roof")

    def battlements(self, footprint: list[Point], z: float, height: float) -> None:
        """Adds pierced parapets along the edges of a flat roof."""
        self.prism(footprint, z, z + height, ("battlement",), cap=False)

    def _paint(self, role: str, width: float, height: float) -> int:
        """Index of a texture, the same for walls of one role and about one size."""
        key = (role, round(width * 2), round(height * 2))
        if key not in self._known:
            self._known[key] = len(self._textures)
            self._textures.append(self._painted(role, width, height))
        return self._known[key]

    def _painted(self, role: str, width: float, height: float) -> np.ndarray:
        rng, style, pierced = self.rng, self.style, role in _PIERCED
        if role != "roof" and not pierced:
            return facades.paint_wall(rng, style, width, height, role)
        columns, rows = texture_size(width, height)
        material = (
            (style.wall, style.pattern) if pierced else (style.roof, style.roof_pattern)
        )
        plain = materials.surface(rng, rows, columns, *material)
        return facades.pierce(plain, style, role, width, height) if pierced else plain


_PIERCED = ("screen", "arch", "battlement", "columns")
