"""The catalogue of an index: the model of its descriptors, and each photo's row.

Descriptors are in stores below INDEX/segments. `catalogue.json` is written atomically,
after the store that it refers to, so that it is true whenever the process ends.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.names import is_valid_name
from tokret.search.photos import Stamp

FILE = "catalogue.json"
VERSION = 1  # of the file's form
NO_SEGMENT = ""  # of photos without a descriptor


class PhotoEntry(msgspec.Struct, frozen=True, array_like=True):
    """A photo of the index."""

    # The store of its descriptor, or NO_SEGMENT.
    segment: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
    row: Annotated[int, msgspec.Meta(ge=0)]  # in that store
    stamp: Stamp  # of the file when its descriptor was extracted
    error: str  # the reason if it has no descriptor; "" if it has one

    def __post_init__(self) -> None:
        """Refuses a photo that has neither a segment nor an error."""
        if self.segment == NO_SEGMENT and not self.error:
            raise ValueError("a photo without an error has no segment")


class ModelInfo(msgspec.Struct, frozen=True):
    """The model of an index's descriptors."""

    checkpoint: str  # folder of the weights
    ema: bool  # whether the EMA of the weights was taken
    weights: str  # digest of the weights
    longest_side: int  # of a photo, in pixels
    scales: tuple[float, ...]  # factors of the sides

    def difference(self, other: "ModelInfo") -> str | None:
        """The first field that changes descriptors; the folder and EMA do not."""
        for field in ("weights", "longest_side", "scales"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return f"{field}: {theirs} and {mine}"
        return None


class Catalogue(msgspec.Struct, frozen=True):
    """An index without its descriptors."""

    root: str  # the folder of its photos
    model: ModelInfo  # of the descriptors
    photos: dict[str, PhotoEntry]  # by path relative to the root
    version: int = VERSION  # of the file's form

    def __post_init__(self) -> None:
        """Refuses paths outside the root: a report shows the photos."""
        for name in self.photos:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not is_valid_name(name):
                raise ValueError(f"{name[:40]!r} is not a photo's path")

    def segments(self) -> list[str]:
        """The stores in use, sorted."""
        used = {entry.segment for entry in self.photos.values()}
        return sorted(used - {NO_SEGMENT})

    def errors(self) -> dict[str, str]:
        """By photo, why it has no descriptor."""
        return {name: e.error for name, e in self.photos.items() if e.error}


class _Version(msgspec.Struct):
    version: int


def write_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Writes the catalogue of an index atomically, or raises a UserError."""
    write_whole(folder / FILE, msgspec.json.encode(catalogue) + b"\n")


def read_catalogue(folder: Path) -> Catalogue:
    """Reads and checks the catalogue of an index.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"index={folder} is not an index; create one of your photos first"
        )
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Version).version
        if found == VERSION:
            return msgspec.json.decode(content, type=Catalogue)
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove the folder and index again"
        ) from error
    raise UserError(
        f"{path} has version {found}, not {VERSION}; another version of tokret wrote "
        "it: remove the folder and index again"
    )
