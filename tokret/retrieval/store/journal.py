"""The list of finished batches: lines that are only appended, each with a checksum."""

import os
import zlib
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A batch whose descriptors are on the disk."""

    rows: tuple[int, ...]
    bad: dict[int, str]  # those whose image has no descriptor, and why
    checksum: int  # CRC-32 of the descriptors, in the order of `rows`


def to_line(entry: Entry) -> bytes:
    """The line of a batch, with a checksum by which a torn line is recognised."""
    text = msgspec.json.encode(entry)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def from_line(line: bytes) -> Entry | None:
    """The batch of a line; None if it is torn."""
    checksum, _, text = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return msgspec.json.decode(text, type=Entry)


def read_journal(path: Path) -> tuple[list[Entry], int]:
    """Reads the batches up to the first torn line, and their lines' total length."""
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


def write_all(file: int, data: bytes, offset: int) -> None:
    """Writes all of it at an offset of a file, in as many calls as needed."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
