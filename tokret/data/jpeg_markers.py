"""Markers of a JPEG (ITU-T T.81, annex B): its size and its scans, nothing decoded."""

import re
import struct
from collections.abc import Iterator

# Start-of-frame markers: what follows is the height and width.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
SCAN = 0xDA
SCAN_BYTES = 10  # at least, of a scan's header
_END = 0xD9
# What starts a segment or ends the photo. Within a scan 0xFF is followed by 0 or by a
# marker without a segment, over which decoders read.
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")


def segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yields the marker of each segment, and where its length and content begin."""
    at = 2 if encoded.startswith(b"\xff\xd8") else len(encoded)
    while found := _SEGMENT.search(encoded, at):
        marker, at = encoded[found.end() - 1], found.end()
        if marker == _END:
            return
        yield marker, at
        at += int.from_bytes(encoded[at : at + 2], "big")


def jpeg_shape(encoded: bytes) -> tuple[int, int] | None:
    """Reads a JPEG's height and width from its header; None where they are missing.

    Pillow takes ten times as long, which is 1 % of the time of the whole view.
    """
    at = 2 if encoded.startswith(b"\xff\xd8") else len(encoded)
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            return (height, width) if height and width else None
        # One byte of padding, or a segment that starts with its length.
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        at += 1 if marker == 0xFF else 2 + length
    return None


def num_scans(encoded: bytes) -> int:
    """Counts the scans that a decoder reads: of a JPEG at least one, of others none."""
    scans, components, progressive = 0, b"", False
    for marker, at in segments(encoded):
        if marker in FRAMES:
            progressive = marker in PROGRESSIVE
            components = encoded[at + 7 : at + 8]
        elif marker == SCAN:
            scans += 1
            # Nothing is read after a first scan that has all components.
            whole = scans == 1 and encoded[at + 2 : at + 3] == components
            if whole and not progressive:
                return scans
    return scans
