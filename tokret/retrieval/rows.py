"""Where descriptors go, batch by batch, in any order."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from tokret.shapes import Bool, Float, Int


@runtime_checkable
class Rows(Protocol):
    """Where descriptors go: memory, or a store on the disk."""

    @property
    def finished(self) -> Bool[np.ndarray, " n"]:
        """Which rows are there already."""

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Takes the descriptors of a batch; NaN for rows that are bad, and why."""


class RowsInMemory:
    """Rows that the process keeps.

    Attributes:
      finished: [N] which rows are there.
      descriptors: [N, D], once there is a batch.
      bad: by row, why an image could not be described.
    """

    def __init__(self, count: int) -> None:
        """Makes room for N rows."""
        self.finished = np.zeros(count, bool)
        self.descriptors: np.ndarray | None = None
        self.bad: dict[int, str] = {}

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Takes the descriptors of a batch."""
        if self.descriptors is None:
            shape = (len(self.finished), descriptors.shape[1])
            self.descriptors = np.full(shape, np.nan, descriptors.dtype)
        self.descriptors[rows] = descriptors
        self.finished[rows] = True
        self.bad |= bad
