"""The list of finished batches: lines that are only added, each with a checksum."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A batch whose descriptors are on the disk.

    Attributes:
      rows: which rows they are.
      bad: of those whose image could not be described, why.
      checksum: CRC-32 of the descriptors, in the order of `rows`.
    """

    rows: tuple[int, ...]
    bad: Mapping[int, str]
    checksum: int


def to_line(entry: Entry) -> bytes:
    """The line of a batch; a line that was torn is known by its checksum."""
    bad = {str(row): why for row, why in entry.bad.items()}
    text = json.dumps([entry.rows, bad, entry.checksum]).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def from_line(line: bytes) -> Entry | None:
    """The batch of a line; None if it was torn."""
    checksum, _, text = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    rows, bad, content = json.loads(text)
    return Entry(tuple(rows), {int(row): why for row, why in bad.items()}, content)


def read_journal(path: Path) -> tuple[list[Entry], int]:
    """Reads the finished batches, up to the first line that was torn.

    Returns:
      The batches, and the bytes that their lines take.
    """
    entries: list[Entry] = []
    length = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                entry = from_line(line)
                if entry is None:
                    break
                entries.append(entry)
                length += len(line)
    return entries, length


def checksum_of(rows: Sequence[bytes]) -> int:
    """CRC-32 of rows' bytes, one after the other."""
    checksum = 0
    for row in rows:
        checksum = zlib.crc32(row, checksum)
    return checksum


def write_all(file: int, data: bytes, at: int) -> None:
    """Writes all of it at a place of a file, however many calls it takes."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done
