"""Opening a complete store."""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokret.errors import UserError
from tokret.retrieval.store.record import Record, read_fields, to_record
from tokret.shapes import Float

RECORD = "store.json"
UNFINISHED = "unfinished.json"
DESCRIPTORS = "descriptors.npy"
JOURNAL = "finished"
_BLOCK = 2**24  # bytes of which the checksum is taken at once


@dataclasses.dataclass(frozen=True)
class Store:
    """A complete store.

    Attributes:
      path: its folder.
      record: whose descriptors they are, of which images, made how.
      descriptors: [N, D] float32, mapped from the disk and not to be written; NaN
        where the image is bad.
      bad: by row, why an image could not be described.
    """

    path: Path
    record: Record
    descriptors: Float[np.ndarray, "n d"]
    bad: Mapping[int, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names, in the order of the rows."""
        return self.record.images.names


def open_store(
    path: str | Path,
) -> tuple[tuple[str, ...], Float[np.ndarray, "n d"]]:
    """Opens a complete store to search in it.

    Args:
      path: its folder.

    Returns:
      N names and [N, D] float32, mapped from the disk; a row of NaN is an image that
      could not be described, which a search puts last.

    Raises:
      UserError: it is no store, is not complete, or is damaged.
    """
    store = read_store(path)
    return store.names, store.descriptors


def is_store(path: str | Path) -> bool:
    """Says whether a path is the folder of a store, complete or not."""
    folder = Path(path)
    return any((folder / name).is_file() for name in (RECORD, UNFINISHED))


def read_store(path: str | Path) -> Store:
    """Opens a complete store with all that it says of itself.

    Raises:
      UserError: it is no store, is not complete, or is damaged.
    """
    folder = Path(path)
    if not is_store(folder):
        raise UserError(f"{folder}: is no store of descriptors: no {RECORD} in it")
    if not (folder / RECORD).is_file():
        raise UserError(
            f"{folder}: is not complete; start what was making it once more, it goes "
            "on where it was"
        )
    fields = read_fields(folder / RECORD)
    record = to_record(fields, folder / RECORD)
    shape = (len(record.images), fields.get("dimensions"))
    descriptors = map_descriptors(folder, shape)
    if descriptors is None or checksum(descriptors) != fields.get("checksum"):
        raise UserError(
            f"{folder / DESCRIPTORS}: is missing or not what {RECORD} was written for; "
            "remove the folder and describe again"
        )
    return Store(folder, record, descriptors, _bad_rows(fields, folder, shape[0]))


def _bad_rows(fields: Mapping[str, Any], folder: Path, rows: int) -> dict[int, str]:
    bad = fields.get("bad")
    right = isinstance(bad, dict) and all(
        row.isdecimal() and int(row) < rows and isinstance(why, str)
        for row, why in bad.items()
    )
    if not right:
        raise UserError(f"{folder / RECORD}: bad cannot be so; describe again")
    return {int(row): why for row, why in fields["bad"].items()}


def map_descriptors(
    folder: Path, shape: tuple[int, Any] | None = None
) -> np.memmap | None:
    """Maps the descriptors; None where they are missing, cut short or something else.

    Args:
      folder: the store.
      shape: what it must be; None leaves it open.
    """
    path = folder / DESCRIPTORS
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, SyntaxError, EOFError):
        return None
    right = isinstance(array, np.memmap) and array.ndim == 2
    if not right or array.dtype != np.float32 or not array.flags.c_contiguous:
        return None
    if shape is not None and array.shape != shape:
        return None
    return array


def checksum(descriptors: np.ndarray) -> int:
    """CRC-32 of all descriptors, read block by block."""
    rows = max(1, _BLOCK // max(1, descriptors.shape[1] * 4))
    found = 0
    for start in range(0, len(descriptors), rows):
        found = zlib.crc32(descriptors[start : start + rows].tobytes(), found)
    return found
