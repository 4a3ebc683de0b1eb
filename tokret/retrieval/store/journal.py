"""The journal of an unfinished store: a line for each batch that is on the disk."""

import zlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

Row = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A batch whose descriptors are on the disk."""

    rows: tuple[Row, ...]
    bad: dict[Row, str]  # those whose image has no descriptor, and why
    checksum: int  # CRC-32 of the descriptors, in the order of `rows`


def encode_batch(rows: list[int], bad: Mapping[int, str], checksum: int) -> bytes:
    """Returns a batch's line."""
    text = msgspec.json.encode(Batch(tuple(rows), dict(bad), checksum))
    return b"%08x %s\n" % (zlib.crc32(text), text)  # a torn line is recognised


def read_batches(content: bytes) -> tuple[list[Batch], int]:
    """Reads the batches up to the first torn line, and their lines' total length."""
    batches: list[Batch] = []
    length = 0
    for line in content.splitlines(keepends=True):
        checksum, _, text = line[:-1].partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            break
        try:
            batches.append(msgspec.json.decode(text, type=Batch))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            break
        length += len(line)
    return batches, length
