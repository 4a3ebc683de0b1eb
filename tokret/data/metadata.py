"""Photos without their metadata, for decoders that refuse a photo because of it.

Damaged or large text, colour profiles and EXIF are no reason to lose a photo: none of
them changes the pixels that are decoded here.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterator

from tokret.data import jpeg_markers

_PNG = b"\x89PNG\r\n\x1a\n"
_USEFUL_CHUNKS = (b"tRNS", b"eXIf")  # transparency, and the orientation
# An item of an AVIF or HEIC that is Exif or, of the type "mime", XMP.
_ITEM = re.compile(rb"(infe.{8})(?:Exif|mime)", re.DOTALL)
_ITEMS_WITHIN = 2**16  # bytes at the start of such a file


def without_metadata(encoded: bytes) -> Iterator[bytes]:
    """Yields the photo without metadata: with its orientation, then without that too.

    Nothing is yielded for formats that have no separate metadata.
    """
    if encoded.startswith(_PNG):
        yield b"".join(_bare_png(encoded, _USEFUL_CHUNKS))
        yield b"".join(_bare_png(encoded, ()))
    elif jpeg_markers.num_scans(encoded):
        yield b"".join(_bare_jpeg(encoded, exif=True))
        yield b"".join(_bare_jpeg(encoded, exif=False))
    elif encoded[4:8] == b"ftyp":
        start = _ITEM.sub(rb"\1free", encoded[:_ITEMS_WITHIN])
        yield start + encoded[_ITEMS_WITHIN:]


def is_cut_png(encoded: bytes) -> bool:
    """Whether a PNG has a chunk that is longer than the file."""
    return encoded.startswith(_PNG) and any(
        end > len(encoded) for _, _, end in _png_chunks(encoded)
    )


def _png_chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each chunk, where it begins and where it ends."""
    at, kind = len(_PNG), b""
    while at + 8 <= len(encoded) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def _bare_png(encoded: bytes, useful: Collection[bytes]) -> Iterator[bytes]:
    """Yields the signature, the critical chunks, and undamaged ones of some kinds."""
    yield _PNG
    for kind, at, end in _png_chunks(encoded):
        critical = not kind[0] & 0x20
        if critical or (kind in useful and _sum_is_right(encoded, at, end)):
            yield encoded[at:end]


def _sum_is_right(encoded: bytes, at: int, end: int) -> bool:
    crc = zlib.crc32(encoded[at + 4 : end - 4])
    return encoded[end - 4 : end] == crc.to_bytes(4, "big")


def _bare_jpeg(encoded: bytes, exif: bool) -> Iterator[bytes]:
    """Yields the segments that pixels depend on, and perhaps Exif."""
    yield b"\xff\xd8"
    for marker, at in jpeg_markers.segments(encoded):
        if marker == jpeg_markers.SCAN:
            yield encoded[at - 2 :]
            return
        content = encoded[at + 2 : at + int.from_bytes(encoded[at : at + 2], "big")]
        if _is_needed(marker, content) or (exif and content.startswith(b"Exif\0\0")):
            yield encoded[at - 2 : at + 2] + content


def _is_needed(marker: int, content: bytes) -> bool:
    """Whether libjpeg needs a segment: of APPn, the two that decide about colours."""
    if marker == 0xE0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == 0xEE:
        return content.startswith(b"Adobe") and len(content) >= 12
    return not 0xE0 <= marker <= 0xEF and marker != 0xFE
