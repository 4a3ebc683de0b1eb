"""Encoded photo -> RGB array, for training (OpenCV) and for evaluation (Pillow).

Evaluation decodes and shrinks with Pillow, as the released code does, so that its
numbers can be compared; training takes the faster decoder.
"""

import dataclasses
import io
import struct
import warnings

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.data.preparing.photo_processing import MAX_PIXELS
from tokret.errors import UserError
from tokret.shapes import UInt8

# Start-of-frame markers of a JPEG: what follows is its height and width.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# The flags for colours mean BGR, and exclude IMREAD_COLOR_RGB.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def open_photo(encoded: bytes, name: str) -> ImageFile.ImageFile:
    """Reads a photo's header with Pillow; its pixels are not decoded yet.

    Raises:
      UserError: if it is not a photo Pillow knows, or claims too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about what is refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            photo = Image.open(io.BytesIO(encoded))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{name} is not a photo of a known format ({len(encoded)} bytes); replace "
            "or remove it"
        ) from error
    _check_size(photo.width, photo.height, name)
    return photo


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name} claims {width} x {height} pixels, more than {MAX_PIXELS}; shrink "
            "or remove it"
        )


def decode_exactly(encoded: bytes, name: str, reduction: int = 1) -> Image.Image:
    """Decodes as the released evaluation does: Pillow, RGB, EXIF rotation ignored.

    Args:
      encoded: the file's bytes.
      name: for errors.
      reduction: divides the sides of a JPEG, as in `EncodedPhoto.pixels`.

    Raises:
      UserError: if the photo cannot be decoded to its end.
    """
    photo = open_photo(encoded, name)
    if reduction != 1:
        photo.draft("RGB", (photo.width // reduction, photo.height // reduction))
    try:
        return photo.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{name} cannot be decoded ({error}); replace or remove it"
        ) from error


@dataclasses.dataclass(frozen=True)
class EncodedPhoto:
    """A photo whose header was read, to be decoded for training.

    `shape` is its height and width in pixels, before any EXIF rotation; only a JPEG can
    be decoded at a reduced size.
    """

    encoded: bytes = dataclasses.field(repr=False)
    name: str
    shape: tuple[int, int]
    is_jpeg: bool

    def pixels(self, reduction: int = 1) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes with OpenCV, or with Pillow where OpenCV fails.

        Args:
          reduction: the sides of a JPEG are divided by 1, 2, 4 or 8, rounded up: its
            blocks of 8 x 8 pixels are decoded smaller, antialiased and faster.

        Raises:
          UserError: if the photo cannot be decoded to its end.
        """
        if reduction != 1 and not self.is_jpeg:
            # OpenCV would drop pixels of other formats without averaging them.
            raise ValueError(f"{self.name} is not a JPEG and cannot be reduced")
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        encoded = np.frombuffer(self.encoded, np.uint8)
        try:
            image = cv2.imdecode(encoded, flags | _REDUCED[reduction])
        except cv2.error:
            image = None
        if image is None:
            image = np.asarray(decode_exactly(self.encoded, self.name, reduction))
        return np.asarray(image, np.uint8)


def read_header(encoded: bytes, name: str) -> EncodedPhoto:
    """Reads the header of a photo that is to be decoded for training.

    Raises:
      UserError: if it is not a photo of a known format, or claims too many pixels.
    """
    shape = jpeg_shape(encoded)
    if shape is None:
        photo = open_photo(encoded, name)
        return EncodedPhoto(encoded, name, (photo.height, photo.width), False)
    _check_size(shape[1], shape[0], name)
    return EncodedPhoto(encoded, name, shape, True)


def jpeg_shape(encoded: bytes) -> tuple[int, int] | None:
    """Reads a JPEG's height and width from its header; None where they are missing.

    Pillow takes ten times as long, which is 1 % of the time of the whole view.
    """
    at = 2 if encoded.startswith(b"\xff\xd8") else len(encoded)
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            return (height, width) if height and width else None
        # One byte of padding, or a segment that starts with its length.
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        at += 1 if marker == 0xFF else 2 + length
    return None


def decode_fast(encoded: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes for training.

    Raises:
      UserError: if the photo cannot be decoded to its end, or claims too many pixels.
    """
    return read_header(encoded, name).pixels()
