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

from tokret.arguments import within

MAX_BYTES = 512 * 2**20  # of an encoded photo; the largest in use have some 50 MiB
# That of tokret.data.decoding, which a worker does not import since jax comes with it.
MAX_PIXELS = 100_000_000
PILLOWS_PIXELS = 178_956_970  # which Pillow itself refuses to exceed
# What photos come as, whatever their names say. Pillow knows further formats, one of
# which runs another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
UPRIGHT_QUALITY = 95  # of a JPEG that was turned
_ORIENTATION = 0x0112
_TURNS = {  # EXIF 2.32, 4.6.4 A
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
      upright: turn photos as their EXIF orientation says; tokret's decoders pass over
        it, as the benchmarks are evaluated.
      max_pixels: that a photo may have.
    """

    resize: int = 0
    quality: int = 90
    upright: bool = False
    max_pixels: int = MAX_PIXELS

    def checked(self) -> "Treatment":
        """Returns it, its numbers checked.

        Raises:
          UserError: if a number is out of range.
        """
        within("data.resize", self.resize, 0, 2**15)
        within("data.quality", self.quality, 1, 95)
        # Those that are kept must be decoded again, by whoever reads the dataset.
        most = PILLOWS_PIXELS if self.resize else MAX_PIXELS
        within("data.max_pixels", self.max_pixels, 1, most)
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
      The same bytes; or those of a JPEG or PNG in plain RGB, of a photo that was shrunk
      or turned, had 16 bits a pixel, or a palette with transparent colours.

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
    photo = _open(encoded, treatment.max_pixels)
    if treatment.resize and min(photo.size) > treatment.resize:
        return _shrunk(photo, treatment)
    # All of the data is read, but of a JPEG only an eighth of the pixels made.
    photo.draft("L", (1, 1))
    photo.load()
    turn = _turn(photo, treatment)
    if turn is None and not _has_16_bits(photo) and not _is_pierced(photo):
        return encoded
    pixels = _rgb(_open(encoded, treatment.max_pixels))
    kind = "JPEG" if photo.format in ("JPEG", "MPO") else "PNG"
    return _encoded(_turned(pixels, turn), kind, UPRIGHT_QUALITY)


def _turn(photo: ImageFile.ImageFile, treatment: Treatment) -> Image.Transpose | None:
    """What brings a photo upright, if that is wanted and anything does."""
    if not treatment.upright:
        return None
    try:
        return _TURNS.get(photo.getexif().get(_ORIENTATION, 1))
    # Malformed EXIF says nothing, and is no reason to lose a photo.
    except Exception:
        return None


def _turned(photo: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return photo if turn is None else photo.transpose(turn)


def _has_16_bits(photo: Image.Image) -> bool:
    return photo.mode.startswith("I")


def _is_pierced(photo: Image.Image) -> bool:
    """A palette with transparent colours, of which Pillow warns ever after."""
    return photo.mode == "P" and "transparency" in photo.info


def _rgb(photo: Image.Image) -> Image.Image:
    """Like `convert`, which takes all above 255 of 16 bits for white."""
    if _has_16_bits(photo):
        photo = Image.fromarray((np.asarray(photo) >> 8).clip(0, 255).astype(np.uint8))
    return photo.convert("RGB")


def _encoded(photo: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _open(encoded: bytes, max_pixels: int) -> ImageFile.ImageFile:
    try:
        photo = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPhoto("not a photo of a known format") from error
    if photo.width * photo.height > max_pixels:
        raise BadPhoto(
            f"claims {photo.width} x {photo.height} pixels, more than {max_pixels:,}"
        )
    return photo


def _shrunk(photo: ImageFile.ImageFile, treatment: Treatment) -> bytes:
    """Averages areas: antialiased, without ringing, in half the time of LANCZOS."""
    scale = treatment.resize / min(photo.size)
    width, height = (round(side * scale) for side in photo.size)
    # A JPEG far larger than wanted is decoded at a half, a quarter or an eighth.
    photo.draft("RGB", (2 * width, 2 * height))
    pixels = np.asarray(_rgb(photo))
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    upright = _turned(Image.fromarray(small), _turn(photo, treatment))
    return _encoded(upright, "JPEG", treatment.quality)
