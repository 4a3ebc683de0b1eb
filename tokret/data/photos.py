"""One photo on its way into a dataset: read, examined, shrunk where asked.

What is wrong with a photo is said in a few words by `BadPhoto`, whatever the file: a
dataset of a million photos has some of every kind, and none of them may end a run.
"""

import io
import os
import stat
import warnings
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.configuration import within

MAX_BYTES = 512 * 2**20  # of an encoded photo; the largest in use have some 50 MiB
# That of tokret.data.decoding, which a worker does not import since jax comes with it.
MAX_PIXELS = 100_000_000
# What photos come as, whatever their names say. Pillow knows further formats, one of
# which runs another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class BadPhoto(Exception):  # noqa: N818 (what it says is not an error of tokret's)
    """What is wrong with a photo, in a few words."""


class Place(NamedTuple):
    """Where a photo's bytes lie.

    Attributes:
      path: a file.
      offset: of the photo's first byte in the file.
      size: in bytes; -1 for all of the file.
    """

    path: str
    offset: int = 0
    size: int = -1


class Reader:
    """Reads photos; keeps the last file open, as an archive holds many in a row."""

    def __init__(self) -> None:
        self._path = ""
        self._file = -1

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self, path: str) -> int:
        if self._file < 0 or self._path != path:
            self._close()
            # Without O_NONBLOCK a pipe that is named like a photo would be waited for.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self._path = path
        return self._file

    def read(self, place: Place) -> bytes:
        """Returns the photo's bytes.

        Raises:
          BadPhoto: if they are not there, too many, or cannot be read.
        """
        try:
            file = self._open(place.path)
            info = os.fstat(file)
            if not stat.S_ISREG(info.st_mode):
                raise BadPhoto("not a regular file")
            size = info.st_size if place.size < 0 else place.size
            if size > MAX_BYTES:
                raise BadPhoto(f"larger than {MAX_BYTES >> 20} MiB")
            return _read_at(file, place.offset, size)
        except FileNotFoundError as error:
            raise BadPhoto("missing") from error
        except OSError as error:
            raise BadPhoto(f"unreadable: {error.strerror}") from error


def _read_at(file: int, offset: int, size: int) -> bytes:
    """Reads at a position; one call to the system gives at most 2 GiB, or less."""
    parts = []
    while size > 0:
        part = os.pread(file, size, offset)
        if not part:
            raise BadPhoto("the file ends before the photo does")
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


class Treatment(NamedTuple):
    """What is done to photos once, before they are stored.

    Attributes:
      resize: the shorter side in pixels where it is longer; 0 keeps every photo as is.
      quality: of the JPEG that a shrunk photo becomes, 1 to 95.
    """

    resize: int = 0
    quality: int = 90

    def checked(self) -> "Treatment":
        """Returns it, its numbers checked.

        Raises:
          UserError: if a number is out of range.
        """
        within("data.resize", self.resize, 0, 2**15)
        within("data.quality", self.quality, 1, 95)
        return self

    def name(self) -> str:
        """For a dataset's name: `original` or `512px-q90`."""
        return f"{self.resize}px-q{self.quality}" if self.resize else "original"

    def description(self) -> str:
        """For a dataset's description, in words."""
        if not self.resize:
            return "photos as they came"
        return (
            f"shorter side at most {self.resize} px (area averages), JPEG quality "
            f"{self.quality} where shrunk"
        )


def treat(encoded: bytes, treatment: Treatment) -> bytes:
    """Examines a photo, and shrinks it where the treatment says so.

    Args:
      encoded: the file's bytes.
      treatment: what is done.

    Returns:
      The same bytes, or those of a JPEG in RGB. EXIF, and with it the orientation, is
      in the former alone: tokret's decoders pass over it.

    Raises:
      BadPhoto: if the photo cannot be decoded to its end, or claims too many pixels.
    """
    if not encoded:
        raise BadPhoto("empty")
    if encoded[:256].lstrip().lower().startswith((b"<html", b"<!doctype", b"<?xml")):
        raise BadPhoto("a web page, not a photo")
    try:
        with warnings.catch_warnings():
            # Of odd EXIF and palettes, which harm nothing, and of sizes refused below.
            warnings.simplefilter("ignore")
            return _treated(encoded, treatment)
    except BadPhoto:
        raise
    # A malformed photo ends in nearly any exception of Pillow's plugins.
    except Exception as error:
        words = " ".join(str(error).split())
        raise BadPhoto(f"cannot be decoded: {words or type(error).__name__}") from error


def _treated(encoded: bytes, treatment: Treatment) -> bytes:
    photo = _open(encoded)
    if treatment.resize and min(photo.size) > treatment.resize:
        return _shrunk(photo, treatment)
    # All of the data is read, but of a JPEG only an eighth of the pixels made.
    photo.draft("L", (1, 1))
    photo.load()
    return encoded


def _open(encoded: bytes) -> ImageFile.ImageFile:
    try:
        photo = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPhoto("not a photo of a known format") from error
    if photo.width * photo.height > MAX_PIXELS:
        raise BadPhoto(
            f"claims {photo.width} x {photo.height} pixels, more than {MAX_PIXELS:,}"
        )
    return photo


def _shrunk(photo: ImageFile.ImageFile, treatment: Treatment) -> bytes:
    """Averages areas: antialiased, without ringing, in half the time of LANCZOS."""
    scale = treatment.resize / min(photo.size)
    width, height = (round(side * scale) for side in photo.size)
    # A JPEG far larger than wanted is decoded at a half, a quarter or an eighth.
    photo.draft("RGB", (2 * width, 2 * height))
    pixels = np.asarray(photo.convert("RGB"))
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=treatment.quality)
    return buffer.getvalue()
