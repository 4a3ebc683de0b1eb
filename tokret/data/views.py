"""What evaluation decodes: the photo, or a query's box, shrunk as in the release.

A query is cropped to its box and shrunk in the proportion that its whole photo would
be, so that a landmark has the same size in both.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
from PIL import Image

from tokret.data.decoding import MAX_PIXELS, decode_exactly, open_photo
from tokret.errors import UserError
from tokret.shapes import UInt8

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Size = tuple[int, int]  # width, height, as Pillow orders them


def thumbnail_size(size: Size, limit: float) -> Size:
    """Returns the size that Pillow's `thumbnail` gives: never enlarged.

    The longest side becomes floor(limit); of the two roundings of the other side the
    one whose aspect is nearer to the photo's.
    """
    width, height = size
    longest = max(1, math.floor(limit))
    if longest >= max(size):
        return size
    aspect = width / height
    if aspect <= 1:
        exact = longest * aspect
        sides = {max(1, math.floor(exact)), max(1, math.ceil(exact))}
        return min(sorted(sides), key=lambda n: abs(aspect - n / longest)), longest
    exact = longest / aspect
    sides = {max(1, math.floor(exact)), max(1, math.ceil(exact))}
    return longest, min(sorted(sides), key=lambda n: abs(aspect - longest / n))


def photo_digest(encoded: bytes) -> str:
    """A digest of a photo's file."""
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class View:
    """One photo to extract a descriptor from."""

    encoded: bytes = dataclasses.field(repr=False)  # the file's bytes
    name: str  # for errors
    box: Box | None  # the part that is used, None for all of it
    longest_side: int  # longest side of the whole photo after shrinking, in pixels

    @property
    def digest(self) -> str:
        """A digest of the photo's file."""
        return photo_digest(self.encoded)

    def _cropped_size(self, photo: Size) -> Size:
        if self.box is None:
            return photo
        x0, y0, x1, y1 = (round(side) for side in self.box)
        size = x1 - x0, y1 - y0
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            box = ",".join(f"{side:g}" for side in self.box)
            raise UserError(
                f"{self.name} is {photo[0]} x {photo[1]} pixels and its box {box} has "
                f"{size[0]} x {size[1]}; choose a box of at least 1 x 1 inside it"
            )
        return size

    def _final_size(self, photo: Size) -> Size:
        size = self._cropped_size(photo)
        return thumbnail_size(size, self.longest_side * max(size) / max(photo))

    def whole_size(self) -> Size:
        """Returns the whole photo's width and height, before any shrinking.

        Raises:
          UserError: if it is no photo.
        """
        return open_photo(self.encoded, self.name).size

    def size(self) -> tuple[int, int]:
        """Returns the view's height and width; only the photo's header is read.

        Raises:
          UserError: if it is no photo, or the box is not a part of one.
        """
        width, height = self._final_size(self.whole_size())
        return height, width

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes, crops and shrinks, with LANCZOS.

        Raises:
          UserError: if the photo cannot be decoded to its end.
        """
        photo = decode_exactly(self.encoded, self.name)
        size = self._final_size(photo.size)
        if self.box is not None:
            photo = photo.crop(self.box)  # Pillow rounds each side
        if size != photo.size:
            # As Pillow's thumbnail: what is far larger is first averaged to twice this.
            photo = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        return np.asarray(photo)


class LazyViews(Sequence[View]):
    """Views that are read when they are indexed; slices are as lazy."""

    def __init__(self, count: int, read: Callable[[int], View]) -> None:
        """Takes the number of views, and what reads that of a row."""
        self._count, self._read = count, read

    def __len__(self) -> int:
        """The number of views."""
        return self._count

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[View]: ...
    def __getitem__(self, row: int | slice) -> View | Sequence[View]:
        """Reads a view, or selects some that are read later."""
        rows = range(self._count)[row]
        return select_views(self, rows) if isinstance(rows, range) else self._read(rows)

    def __iter__(self) -> Iterator[View]:
        """Reads one view after the other."""
        return map(self._read, range(self._count))


def select_views(views: Sequence[View], rows: Sequence[int]) -> LazyViews:
    """Selects rows of views, in this order."""
    return LazyViews(len(rows), lambda row: views[rows[row]])
