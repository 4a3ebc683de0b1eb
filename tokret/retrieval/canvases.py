"""Views grouped by padded shape: few programs, and little padding.

Views are padded at the right and the bottom to a few canvases; each canvas costs one
compilation.
"""

import dataclasses
import heapq
from collections.abc import Iterator

import numpy as np

from tokret.shapes import Int

Shape = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class Canvas:
    """A padded shape and its views."""

    height: int  # in pixels
    width: int  # in pixels
    rows: tuple[int, ...]  # indices of the views

    def batches(self, batch_size: int) -> list["Canvas"]:
        """Divides the views into batches of this canvas, in order."""
        return [
            Canvas(self.height, self.width, self.rows[i : i + batch_size])
            for i in range(0, len(self.rows), batch_size)
        ]


def plan_canvases(
    sizes: Int[np.ndarray, "n 2"], limit: int, batch_size: int = 1, step: int = 32
) -> list[Canvas]:
    """Chooses at most `limit` canvases with little padding; each costs a compilation.

    Sides are rounded up to multiples of `step`. Then, while there are too many
    canvases, or while it reduces the number of computed pixels, the two are merged that
    add the fewest pixels. Empty places in a last batch are computed, too. A photo of
    size 0, 0, which cannot be read, gets no canvas.
    """
    groups: dict[Shape, list[int]] = {}
    for row, (height, width) in enumerate((-(-sizes // step) * step).tolist()):
        if height and width:
            groups.setdefault((height, width), []).append(row)

    def work(shape: Shape, views: int) -> int:
        return -(-views // batch_size) * batch_size * shape[0] * shape[1]

    def candidate(a: Shape, b: Shape) -> tuple[int, Shape, Shape, int, int]:
        a, b = min(a, b), max(a, b)
        m, n = len(groups[a]), len(groups[b])
        added = work(_around(a, b), m + n) - work(a, m) - work(b, n)
        return added, a, b, m, n

    shapes = sorted(groups)
    heap = [candidate(a, b) for i, a in enumerate(shapes) for b in shapes[i + 1 :]]
    heapq.heapify(heap)
    while heap and (len(groups) > max(limit, 1) or heap[0][0] < 0):
        _, a, b, m, n = heapq.heappop(heap)
        if (len(groups.get(a, ())), len(groups.get(b, ()))) != (m, n):
            continue  # one of them was merged since
        merged, rows = _around(a, b), groups.pop(a) + groups.pop(b)
        groups.setdefault(merged, []).extend(rows)
        for other in groups:
            if other != merged:
                heapq.heappush(heap, candidate(merged, other))
    return [Canvas(*shape, tuple(sorted(groups[shape]))) for shape in sorted(groups)]


def _around(a: Shape, b: Shape) -> Shape:
    return max(a[0], b[0]), max(a[1], b[1])


def padding_fraction(
    canvases: list[Canvas], sizes: Int[np.ndarray, "n 2"], batch_size: int
) -> float:
    """The fraction of computed pixels that belong to no view."""
    areas = sizes.astype(np.int64).prod(axis=1)
    used = sum(int(areas[list(canvas.rows)].sum()) for canvas in canvases)
    computed = sum(
        len(canvas.batches(batch_size)) * batch_size * canvas.height * canvas.width
        for canvas in canvases
    )
    return 1 - used / computed if computed else 0.0


def canvas_summary(
    canvases: list[Canvas], sizes: Int[np.ndarray, "n 2"], batch_size: int
) -> Iterator[str]:
    """Yields lines: how many views each canvas has."""
    views = sum(len(canvas.rows) for canvas in canvases)
    padding = 100 * padding_fraction(canvases, sizes, batch_size)
    programs = f"{len(canvases)} program{'s' * (len(canvases) != 1)}"
    yield f"{views} photos, {programs} to compile, {padding:.1f}% padding:"
    for canvas in canvases:
        yield f"  canvas {canvas.height} x {canvas.width}: {len(canvas.rows)} photos"
