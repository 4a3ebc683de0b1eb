"""Records of a prepared split, read one at a time, and views of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tokret.data.views import Box, LazyViews, View
from tokret.errors import UserError

Record = Mapping[str, Any]  # image: encoded bytes, label: int, filename: bytes


@runtime_checkable
class Records(Protocol):
    """The records of a split; each is read from disk, which may fail."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


class BadRecordError(Exception):
    """A record that cannot be read or decoded; the message has the reason."""


def read_record(records: Records, index: int) -> Record:
    """Reads a record.

    Raises:
      BadRecordError: if it cannot be read as it was written.
    """
    try:
        record = records[index]
    # array_record's and TFDS's own, and the system's.
    except (OSError, RuntimeError, ValueError, IndexError, KeyError) as error:
        words = " ".join(str(error).split())[:200]
        raise BadRecordError(f"record {index} cannot be read: {words}") from error
    # What array_record returns from a truncated file.
    if not record["image"]:
        raise BadRecordError(f"record {index} is empty: its file is truncated")
    return record


class RecordViews(LazyViews):
    """Views of records; of a million photos only those in use are in memory."""

    def __init__(
        self,
        records: Records,
        longest_side: int,
        indices: Sequence[int] | None = None,
        boxes: Sequence[Box | None] | None = None,
    ) -> None:
        """Selects the records of some indices, None for all, and a box of each.

        `longest_side` is that of a whole photo after shrinking, in pixels. A record
        that cannot be read raises a UserError when its view is read.
        """
        chosen = range(len(records)) if indices is None else indices

        def read(row: int) -> View:
            try:
                record = read_record(records, chosen[row])
            except BadRecordError as error:
                raise UserError(str(error)) from error
            name, box = record["filename"].decode(), boxes[row] if boxes else None
            return View(record["image"], name, box, longest_side)

        super().__init__(len(chosen), read)
