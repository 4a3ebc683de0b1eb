"""A database in several pieces, such as a benchmark's images and distractors."""

from collections.abc import Sequence

import numpy as np

from tokret.retrieval.blocks import Database
from tokret.shapes import Float


class Joined:
    """Rows of several databases, one behind the other; only slices are ever in memory.

    Attributes:
      shape: (N, D).
      dtype: float32.
    """

    def __init__(self, pieces: Sequence[Database]) -> None:
        """Joins databases of the same D.

        Raises:
          ValueError: they have different dimensions.
        """
        dims = {piece.shape[1] for piece in pieces}
        if len(dims) != 1:
            raise ValueError(f"pieces have {sorted(dims)} dimensions")
        self._pieces = tuple(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        self.shape, self.dtype = (self._ends[-1], dims.pop()), np.dtype(np.float32)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Float[np.ndarray, "n d"]:
        """Some rows; a slice within one piece of float32 is not copied."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows that follow one another can be had, no others")
        parts, begin = [], 0
        for piece, end in zip(self._pieces, self._ends, strict=True):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                part = piece[low - begin : high - begin]
                parts.append(np.asarray(part, np.float32))
            begin = end
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self.shape[1]), np.float32), *parts])
