"""Image sets and their rows, concatenated: extracted together, stored apart."""

from collections.abc import Mapping

import msgspec
import numpy as np

from tokret.data.views import LazyViews, View
from tokret.evaluation.image_sets import ImageSets
from tokret.retrieval.extraction import DescriptorWriter
from tokret.retrieval.store.record import Images
from tokret.retrieval.view_batches import ScannedPhotos
from tokret.shapes import Bool, Float, Int


class ConcatenatedViews(LazyViews):
    """The views of all sets, one set after the other; `ranges`: their rows by set."""

    def __init__(self, sets: ImageSets) -> None:
        """Concatenates the sets."""
        counts = [len(views) for views in sets.values()]
        ends = np.cumsum([0, *counts]).tolist()
        self.ranges = {
            name: range(end - count, end)
            for name, count, end in zip(sets, counts, ends[1:], strict=True)
        }
        views = list(sets.values())

        def read(row: int) -> View:
            number = int(np.searchsorted(ends, row, side="right")) - 1
            return views[number][row - ends[number]]

        super().__init__(ends[-1], read)

    def split(self, photos: ScannedPhotos) -> dict[str, ScannedPhotos]:
        """Splits the photos of all views into those of the sets."""
        return {name: _slice(photos, rows) for name, rows in self.ranges.items()}


def _slice(photos: ScannedPhotos, rows: range) -> ScannedPhotos:
    images, part = photos.images, slice(rows.start, rows.stop)
    bad = {row - rows.start: why for row, why in photos.bad.items() if row in rows}
    columns = (column[part] for column in msgspec.structs.astuple(images))
    return ScannedPhotos(Images(*columns), bad)


class ConcatenatedRows:
    """The rows of all sets, each written to where its set's descriptors go."""

    def __init__(
        self, ranges: Mapping[str, range], rows: Mapping[str, DescriptorWriter]
    ) -> None:
        """Concatenates writers, by set; `ranges` are their rows among all."""
        self._ranges, self._rows = ranges, rows

    @property
    def finished(self) -> Bool[np.ndarray, " n"]:
        """Which rows exist already, of all sets."""
        return np.concatenate([self._rows[name].finished for name in self._ranges])

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Splits a batch among the sets."""
        for name, mine in self._ranges.items():
            chosen = (rows >= mine.start) & (rows < mine.stop)
            if chosen.any():
                reasons = {r - mine.start: why for r, why in bad.items() if r in mine}
                own = rows[chosen] - mine.start
                self._rows[name].write(own, descriptors[chosen], reasons)
