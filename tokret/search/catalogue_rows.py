"""The rows of a catalogue: what they hold, and what they must not hold."""

import os
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from tokret.names import is_valid_name
from tokret.search.photos import Stamp
from tokret.shapes import Bool, Shaped

NO_PART = ""  # of photos without a descriptor
TokenOrNone = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
Token = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Natural = Annotated[int, msgspec.Meta(ge=0)]


class PhotoEntry(NamedTuple):
    """A photo of the index: a path, whose content others may have too.

    It has an error, or a part and a row, or neither: then it was removed from the index
    but not from its folder, and updates skip it.
    """

    name: str  # path relative to the root
    stamp: Stamp  # of the file when its content was read
    error: str = ""  # the reason if it has no descriptor
    digest: str = ""  # of the file: 16 hexadecimal digits; "" with an error
    part: str = NO_PART  # the store of its descriptor, or NO_PART
    row: int = 0  # in that store

    @property
    def folder(self) -> str:
        """The path of its folder relative to the root; "" is the root."""
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """The name of its folder; "" is the root."""
        return self.folder.rpartition("/")[2]

    @property
    def is_removed(self) -> bool:
        """Whether it was removed from the index."""
        return not self.error and self.part == NO_PART


class Part(NamedTuple):
    """A part: the digests of its rows, and which are of photos in the index."""

    name: str
    digests: Shaped[np.ndarray, " n"]  # uint64
    live: Bool[np.ndarray, " n"]

    def has(self, photo: PhotoEntry) -> bool:
        """Whether a photo's row, in this part, is that of its content."""
        row = photo.row
        is_live = row < len(self.live) and bool(self.live[row])
        return is_live and int(self.digests[row]) == int(photo.digest, 16)


class ModelInfo(msgspec.Struct, frozen=True):
    """The model of an index's descriptors."""

    checkpoint: str  # folder that the weights were taken from
    weights: str  # digest of the weights
    longest_side: int  # of a photo, in pixels
    scales: tuple[float, ...]  # factors of the sides
    fields: dict[str, Any]  # of the model in the config
    copy: TokenOrNone = ""  # folder of the index's own copy of the weights

    def difference(self, other: "ModelInfo") -> str | None:
        """The first field that changes descriptors; the folders do not."""
        for field in ("weights", "longest_side", "scales"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return f"{field}: {theirs} and {mine}"
        for field in sorted(self.fields.keys() | other.fields.keys()):
            mine, theirs = self.fields.get(field), other.fields.get(field)
            if mine != theirs:
                return f"model.{field}: {theirs!r} and {mine!r}"
        return None


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """The row of `meta`: what is true of the whole index."""

    id: int
    root: str
    model: str  # JSON
    engines: str  # JSON
    token: Token  # of this file; a rebuild has another one
    changes: Natural


class PhotoRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `photos`."""

    id: Natural
    name: str
    folder: Natural
    size: Natural
    modified: int
    digest: int | None
    part: Natural | None
    row: Natural
    error: str


class PartRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `parts`."""

    id: Natural
    name: Token
    digests: bytes  # uint64, little-endian
    live: bytes  # a byte of 0 or 1 each

    def __post_init__(self) -> None:
        """Refuses other lengths, and other values of `live`."""
        if len(self.digests) != 8 * len(self.live) or self.live.strip(b"\0\1"):
            raise ValueError("a part has other numbers of rows")


def to_text(digest: int) -> str:
    """A digest's 64 bits, signed or not, as 16 hexadecimal digits."""
    return f"{digest % 2**64:016x}"


def to_signed(digest: str) -> int:
    """The 64 bits of 16 hexadecimal digits, as the signed integer of SQLite."""
    number = int(digest, 16)
    return number - 2**64 if number >= 2**63 else number


def check_root(root: str) -> None:
    """Raises a ValueError if a path is relative, or cannot be stored and printed."""
    if not os.path.isabs(root):
        raise ValueError(f"root {ascii(root[:40])} is not an absolute path")
    if not is_valid_name(root):
        raise ValueError(f"root {ascii(root[:200])} has control characters")


def check_photos(photos: Sequence[PhotoRow]) -> None:
    """Raises a ValueError for rows that no photos have."""
    # Of a million names each takes a microsecond; together they take less.
    text = "/".join(photo.name for photo in photos)
    if photos and (_is_outside(text) or "//" in text or not is_valid_name(text)):
        for photo in photos:
            check_name(photo.name)
    for photo in photos:
        if (photo.digest is None) != bool(photo.error):
            raise ValueError("a photo has either an error or a digest")
        if photo.error and photo.part is not None:
            raise ValueError("a photo with an error has no part")


def check_name(name: str) -> None:
    """Raises a ValueError for a path outside the root: a report shows the photos."""
    if _is_outside(name) or not is_valid_name(name):
        raise ValueError(f"{name[:40]!r} is not a photo's path")


def _is_outside(name: str) -> bool:
    return name.startswith("/") or "/../" in f"/{name}/"
