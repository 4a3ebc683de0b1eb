"""Google Landmarks v2's photos of a split, as an ordered list, and missing photos."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokret.data.google_landmarks.photo_lists import photo_name
from tokret.data.google_landmarks.photo_locations import tree_path
from tokret.data.preparing.photo_files import PhotoLocation, PhotoLocations
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto


@dataclasses.dataclass(frozen=True)
class LandmarkPhotos:
    """Photos of a split: [N] uint64 ids, [N] int64 labels, and locations.

    These are of the photos in tars, or the folder of unpacked photos.
    """

    ids: np.ndarray
    labels: np.ndarray
    locations: PhotoLocations | Path

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> list[SourcePhoto]:
        return [
            SourcePhoto(
                f"{photo_name(int(self.ids[row]))}.jpg",
                self._location(row),
                {"label": int(self.labels[row])},
            )
            for row in range(len(self))[rows]
        ]

    def _location(self, row: int) -> PhotoLocation:
        if isinstance(self.locations, Path):
            return PhotoLocation(tree_path(self.locations, int(self.ids[row])))
        return self.locations[row]

    def take(self, rows: np.ndarray) -> "LandmarkPhotos":
        """Those of some rows, in the order in which they are read fastest."""
        if isinstance(self.locations, Path):
            return LandmarkPhotos(self.ids[rows], self.labels[rows], self.locations)
        # Each tar from its start to its end, once a split.
        locations = self.locations.take(rows)
        order = np.lexsort((locations.offset, locations.file))
        rows = rows[order]
        return LandmarkPhotos(self.ids[rows], self.labels[rows], locations.take(order))


class MissingPhotos(Sequence[Problem]):
    """Photos that do not exist: up to four million, where there is no tar."""

    def __init__(self, ids: np.ndarray, root: Path):
        self._ids = ids
        self._root = str(root)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        name = photo_name(int(self._ids[row]))
        return Problem(f"{name}.jpg", self._root, "missing")
