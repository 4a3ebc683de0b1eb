"""Opening a complete store."""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io.descriptor_files import map_array, read_header
from tokret.io.json_files import read_json
from tokret.io.remote.fetching import require
from tokret.retrieval.exact_search.blocks import read_in_blocks
from tokret.retrieval.store.record import Record
from tokret.shapes import Float

RECORD = "store.json"
UNFINISHED = "unfinished.json"
DESCRIPTORS = "descriptors.npy"
JOURNAL = "finished"
MAX_RECORD = 2**31  # bytes of the JSON; a million images take 0.1 GB
REMEDY = "remove the folder and extract again"


class UnfinishedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `unfinished.json`."""

    # raised whenever the same weights would give other descriptors, so that old stores
    # are refused
    format: Literal[1] = 1
    record: Record


class StoreFile(UnfinishedFile, frozen=True, kw_only=True):
    """The content of `store.json`."""

    dimensions: int  # D
    # by row, why an image has no descriptor
    bad: dict[Annotated[int, msgspec.Meta(ge=0)], str]
    checksum: int  # CRC-32 of all descriptors

    def __post_init__(self) -> None:
        """Checks the bad rows."""
        if self.bad and max(self.bad) >= len(self.record.images):
            raise ValueError(f"bad: row {max(self.bad)} is no image")


@dataclasses.dataclass(frozen=True)
class Store:
    """A complete store."""

    path: Path
    record: Record  # which model's descriptors they are, of which images, made how
    # [N, D] float32, mapped from the disk and read-only; NaN where the image is bad
    descriptors: Float[np.ndarray, "n d"]
    bad: Mapping[int, str]  # by row, why an image has no descriptor

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names, in the order of the rows."""
        return self.record.images.names


def fetch_store(path: Path) -> Path:
    """Fetches a store, or an .npy file of descriptors, if they have a URL.

    Returns the path; errors are those of `require`.
    """
    return require(path, lambda name: name in ("", RECORD, UNFINISHED, DESCRIPTORS))


def is_store(path: str | Path) -> bool:
    """Whether a path is the folder of a store, complete or not."""
    folder = Path(path)
    return any((folder / name).is_file() for name in (RECORD, UNFINISHED))


def read_store(path: str | Path) -> Store:
    """Opens a complete store.

    Raises:
      UserError: it is no store, is not complete, or is damaged.
    """
    folder = Path(path)
    if not is_store(folder):
        raise UserError(f"{folder}: not a store of descriptors: it has no {RECORD}")
    if not (folder / RECORD).is_file():
        raise UserError(
            f"{folder}: not complete; run the extraction again, it resumes where it "
            "stopped"
        )
    file: StoreFile = read_json(folder / RECORD, StoreFile, REMEDY, MAX_RECORD)
    shape = (len(file.record.images), file.dimensions)
    descriptors = map_descriptors(folder, shape)
    if descriptors is None or descriptors_checksum(descriptors) != file.checksum:
        raise UserError(
            f"{folder / DESCRIPTORS}: missing or changed since {RECORD} was written: "
            f"{REMEDY}"
        )
    return Store(folder, file.record, descriptors, file.bad)


def map_descriptors(
    folder: Path, shape: tuple[int, Any] | None = None
) -> np.memmap | None:
    """Maps [N, D] float32; None if missing, cut short, or not of the expected shape."""
    path = folder / DESCRIPTORS
    try:
        header = read_header(path)
        right = len(header.shape) == 2 and header.dtype.str == np.dtype("f4").str
        if not right or header.fortran_order or shape not in (None, header.shape):
            return None
        return map_array(path, header)
    except UserError:
        return None


def checksum(pieces: Iterable[bytes | memoryview]) -> int:
    """CRC-32 of bytes in pieces."""
    found = 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
    return found


def descriptors_checksum(descriptors: Float[np.ndarray, "n d"]) -> int:
    """CRC-32 of all descriptors, read block by block."""
    blocks = read_in_blocks(descriptors)
    return checksum(np.ascontiguousarray(rows).data for _, rows in blocks)
