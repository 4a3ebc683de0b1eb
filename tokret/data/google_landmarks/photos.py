"""Google Landmarks v2's photos of a split, as an ordered list, and those that miss."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from tokret.data.google_landmarks.files import tree_path
from tokret.data.google_landmarks.lists import photo_name
from tokret.data.preparing.photos import Place
from tokret.data.preparing.places import Places
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import Item


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Photos of a split, where they lie and their labels.

    Attributes:
      ids: [N] uint64.
      labels: [N] int64.
      places: of the photos in tars, or the folder of those that were unpacked.
    """

    ids: np.ndarray
    labels: np.ndarray
    places: Places | Path

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> list[Item]:
        rows = range(*part.indices(len(self)))
        return [
            Item(
                f"{photo_name(int(self.ids[row]))}.jpg",
                self._place(row),
                {"label": int(self.labels[row])},
            )
            for row in rows
        ]

    def _place(self, row: int) -> Place:
        if isinstance(self.places, Path):
            return Place(tree_path(self.places, int(self.ids[row])))
        return self.places[row]

    def take(self, rows: np.ndarray) -> "Landmarks":
        """Those of some rows, in the order in which they are read fastest."""
        if isinstance(self.places, Path):
            return Landmarks(self.ids[rows], self.labels[rows], self.places)
        # Each tar from its beginning to its end, once a split.
        places = self.places.take(rows)
        order = np.lexsort((places.offset, places.file))
        rows = rows[order]
        return Landmarks(self.ids[rows], self.labels[rows], places.take(order))


class Missing(Sequence[Problem]):
    """Photos that are not there: four million, where no tar is."""

    def __init__(self, ids: np.ndarray, root: Path):
        self._ids = ids
        self._root = str(root)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> Problem: ...

    @overload
    def __getitem__(self, place: slice) -> list[Problem]: ...

    def __getitem__(self, place: int | slice) -> Problem | list[Problem]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        name = photo_name(int(self._ids[place]))
        return Problem(f"{name}.jpg", self._root, "missing")
