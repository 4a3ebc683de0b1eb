"""The catalogue of an index: the model of its descriptors, and each photo's row.

Descriptors are in stores below INDEX/parts. A photo has the row of the file with its
content, whatever its name was when the descriptor was extracted. `catalogue.json` is
written atomically, after what it refers to, so that it is true whenever the process
ends.
"""

import os
import zlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tokret.data import folders
from tokret.errors import UserError
from tokret.io.json_files import read_json
from tokret.io.regular_files import parsing
from tokret.names import is_valid_name
from tokret.search.photos import Stamp

FILE, PARTS, WEIGHTS = folders.CATALOGUE, folders.PARTS, "weights"
VERSION = 3  # of the file's form
NO_PART = ""  # of photos without a descriptor
REMEDY = "index its photos again with rebuild"
FROM_CHECKPOINT = f"{REMEDY} and a checkpoint"  # where the copy of the weights is lost
MAX_BYTES = 2**31
LOCK = ".lock"
TokenOrNone = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]


class PhotoEntry(msgspec.Struct, frozen=True, array_like=True):
    """A photo of the index."""

    stamp: Stamp  # of the file when its content was read
    error: str = ""  # the reason if it has no descriptor; "" if it has one
    digest: TokenOrNone = ""  # of the file; "" without a descriptor
    part: TokenOrNone = NO_PART  # the store of its descriptor, or NO_PART
    row: Annotated[int, msgspec.Meta(ge=0)] = 0  # in that store

    def __post_init__(self) -> None:
        """Refuses a photo with a descriptor and an error, or with neither."""
        if bool(self.error) == bool(self.part) or bool(self.part) != bool(self.digest):
            raise ValueError("a photo has either an error, or a digest and a part")


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


class Catalogue(msgspec.Struct, frozen=True):
    """An index without its descriptors."""

    root: str  # the folder of its photos
    model: ModelInfo  # of the descriptors
    photos: dict[str, PhotoEntry]  # by path relative to the root
    version: int = VERSION  # of the file's form
    checksum: int = 0  # CRC-32 of the encoded catalogue with a checksum of 0

    def errors(self) -> dict[str, str]:
        """By photo, why it has no descriptor."""
        return {name: e.error for name, e in self.photos.items() if e.error}

    def live_rows(self) -> dict[str, dict[int, list[str]]]:
        """The photos of each row in use, by part; copies of a file have one row."""
        live: dict[str, dict[int, list[str]]] = {}
        for name, entry in self.photos.items():
            if entry.part != NO_PART:
                live.setdefault(entry.part, {}).setdefault(entry.row, []).append(name)
        return live


class _Version(msgspec.Struct):
    version: int


def check_root(root: str) -> None:
    """Raises a ValueError if a path is relative, or cannot be stored and printed."""
    if not os.path.isabs(root):
        raise ValueError(f"root {ascii(root[:40])} is not an absolute path")
    if not is_valid_name(root):
        raise ValueError(f"root {ascii(root[:200])} has control characters")


def _check_paths(catalogue: Catalogue) -> None:
    """Raises a ValueError for paths outside the root: a report shows the photos."""
    check_root(catalogue.root)
    for name in catalogue.photos:
        outside = name.startswith("/") or ".." in name.split("/")
        if outside or not is_valid_name(name):
            raise ValueError(f"{name[:40]!r} is not a photo's path")


def encode_catalogue(catalogue: Catalogue) -> bytes:
    """Encodes a catalogue with its checksum, as JSON."""
    text = msgspec.json.encode(msgspec.structs.replace(catalogue, checksum=0))
    whole = msgspec.structs.replace(catalogue, checksum=zlib.crc32(text))
    return msgspec.json.encode(whole) + b"\n"


def read_catalogue(folder: Path, file: str = FILE) -> Catalogue:
    """Reads and checks the catalogue of an index.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / file
    if not path.exists():
        unfinished = (folder / WEIGHTS).is_dir() and (folder / LOCK).exists()
        raise UserError(
            f"index={folder} has no complete part yet; wait, or index its photos again"
            if unfinished
            else f"index={folder} is not an index; create one of your photos first"
        )
    found = read_json(path, _Version, REMEDY, MAX_BYTES).version
    if found != VERSION:
        raise UserError(
            f"{path} has version {found}, not {VERSION}; another version of tokret "
            f"wrote it: {REMEDY}"
        )
    catalogue: Catalogue = read_json(path, Catalogue, REMEDY, MAX_BYTES)
    with parsing(path, REMEDY):
        _check_paths(catalogue)
        text = msgspec.json.encode(msgspec.structs.replace(catalogue, checksum=0))
        if zlib.crc32(text) != catalogue.checksum:
            raise ValueError("another checksum")
    return catalogue
