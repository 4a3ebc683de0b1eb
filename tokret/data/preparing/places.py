"""Where millions of photos lie, in a few arrays."""

import dataclasses

import numpy as np

from tokret.data.preparing.photos import Place


@dataclasses.dataclass(frozen=True)
class Places:
    """The places of N photos, some of which may not have been found.

    Attributes:
      files: that hold them.
      file: [N] int32 index into `files`, -1 for a photo that was not found.
      offset: [N] int64 of the photo's first byte in its file.
      size: [N] int64 in bytes, -1 for all of the file.
    """

    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, photos: int) -> "Places":
        """Places of which none is known yet."""
        return cls(
            [],
            np.full(photos, -1, np.int32),
            np.zeros(photos, np.int64),
            np.full(photos, -1, np.int64),
        )

    def __getitem__(self, row: int) -> Place:
        """The place of a photo that was found."""
        return Place(
            self.files[self.file[row]], int(self.offset[row]), int(self.size[row])
        )

    def add(
        self,
        path: str,
        rows: int | np.ndarray,
        offset: int | np.ndarray,
        size: int | np.ndarray,
    ) -> None:
        """Notes where photos lie that were not found before."""
        if not self.files or self.files[-1] != path:
            self.files.append(path)
        self.file[rows] = len(self.files) - 1
        self.offset[rows] = offset
        self.size[rows] = size

    def take(self, rows: np.ndarray) -> "Places":
        """Those of some photos, in the order of their rows."""
        return Places(self.files, self.file[rows], self.offset[rows], self.size[rows])
