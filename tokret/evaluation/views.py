"""The photos of an evaluation, in parts: described together, kept apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from tokret.data.views import View
from tokret.retrieval.rows import Rows
from tokret.retrieval.store.record import Images
from tokret.retrieval.view_batches import Survey
from tokret.shapes import Bool, Float, Int

Parts = Mapping[str, Sequence[View]]  # by name, such as query and database


class Chain(Sequence[View]):
    """All parts' views, one after the other.

    Attributes:
      ranges: by part, where its views stand.
    """

    def __init__(self, parts: Parts) -> None:
        """Lays the parts out."""
        ends = np.cumsum([0, *(len(views) for views in parts.values())]).tolist()
        self._parts = list(parts.values())
        self._ends = ends[1:]
        self.ranges = {
            name: range(start, end)
            for name, start, end in zip(parts, ends, ends[1:], strict=False)
        }

    def __len__(self) -> int:
        """The number of views in all parts."""
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[View]: ...
    def __getitem__(self, row: int | slice) -> View | Sequence[View]:
        """Finds a view in its part."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[number][row - (self._ends[number - 1] if number else 0)]

    def __iter__(self) -> Iterator[View]:
        """Goes through all parts."""
        return (self[row] for row in range(len(self)))

    def surveys(self, photos: Survey) -> dict[str, Survey]:
        """Divides what was said of all views among the parts."""
        return {name: _cut(photos, rows) for name, rows in self.ranges.items()}


def _cut(photos: Survey, rows: range) -> Survey:
    images = photos.images
    columns = (images.names, images.sizes, images.boxes, images.digests)
    part: list[Any] = [column[rows.start : rows.stop] for column in columns]
    bad = {row - rows.start: why for row, why in photos.bad.items() if row in rows}
    return Survey(Images(*part), bad)


class ChainedRows:
    """Rows of all parts, which go to the part that each belongs to."""

    def __init__(self, ranges: Mapping[str, range], rows: Mapping[str, Rows]) -> None:
        """Puts rows behind one another.

        Args:
          ranges: by part, where its rows stand.
          rows: by part, where its descriptors go.
        """
        self._ranges, self._rows = ranges, rows

    @property
    def finished(self) -> Bool[np.ndarray, " n"]:
        """Which rows are there, of all parts."""
        return np.concatenate([self._rows[name].finished for name in self._ranges])

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Divides a batch among the parts."""
        for name, mine in self._ranges.items():
            here = (rows >= mine.start) & (rows < mine.stop)
            if here.any():
                reasons = {r - mine.start: why for r, why in bad.items() if r in mine}
                self._rows[name].write(
                    rows[here] - mine.start, descriptors[here], reasons
                )
