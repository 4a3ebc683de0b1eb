"""Encoded photo -> RGB array, for training (OpenCV) and for evaluation (Pillow).

Evaluation decodes and shrinks with Pillow, as the released code does, so that its
numbers can be compared; training takes the faster decoder.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.data.jpeg_markers import SCAN_BYTES, jpeg_shape, num_scans
from tokret.data.metadata import is_cut_png, without_metadata
from tokret.data.photo_formats import error_words, open_format
from tokret.data.preparing.photo_files import BadPhotoError
from tokret.errors import UserError
from tokret.shapes import UInt8

MAX_PIXELS = 100_000_000  # about 10,000 x 10,000; refused before memory is allocated
# Pixels times scans of a JPEG: each scan passes over the whole photo, in some 0.5 ns a
# pixel. Progressive JPEGs have about ten scans; of 100 megapixels they may have 50.
MAX_SCANNED_PIXELS = 5_000_000_000

Decoded = TypeVar("Decoded")
# The flags for colours mean BGR, and exclude IMREAD_COLOR_RGB.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def open_encoded(encoded: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Reads a photo's header with Pillow; its pixels are not decoded yet.

    Raises:
      BadPhotoError: if it is not a photo of a known format, claims too many pixels, or
        takes too much work to decode.
    """
    photo = open_format(encoded)
    _check_work(encoded, photo.width, photo.height, max_pixels)
    return photo


def _check_work(
    encoded: bytes, width: int, height: int, max_pixels: int = MAX_PIXELS
) -> None:
    if width * height > max_pixels:
        raise BadPhotoError(
            f"claims {width} x {height} pixels, more than {max_pixels:,} (max_pixels)"
        )
    if len(encoded) // SCAN_BYTES * width * height <= MAX_SCANNED_PIXELS:
        return  # too few bytes for so many scans
    scans = num_scans(encoded)
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise BadPhotoError(
            f"its {scans:,} scans of {width} x {height} pixels take too long to "
            "decode; save it as a plain JPEG"
        )


def attempt(encoded: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
    """Calls `decode`; where it fails, also on the photo without its metadata.

    Raises:
      BadPhotoError: with the decoder's reason, whatever exception that was.
    """
    try:
        return _call(decode, encoded)
    except BadPhotoError as error:
        reason = error
    for bare in without_metadata(encoded):
        try:
            return _call(decode, bare)
        except BadPhotoError as error:
            reason = error
    raise reason


def _call(decode: Callable[[bytes], Decoded], encoded: bytes) -> Decoded:
    try:
        return decode(encoded)
    except BadPhotoError:
        raise
    # A malformed photo ends in nearly any exception of Pillow's plugins.
    except Exception as error:
        raise BadPhotoError(f"cannot be decoded: {error_words(error)}") from error


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Turns why a photo is bad into a UserError that names it."""
    try:
        yield
    except BadPhotoError as error:
        raise UserError(f"{name}: {error}; replace or remove it") from error


def open_photo(encoded: bytes, name: str) -> ImageFile.ImageFile:
    """Reads a photo's header with Pillow, as `open_encoded`.

    Raises:
      UserError: as `open_encoded`; it names the photo.
    """
    with _named(name):
        return attempt(encoded, open_encoded)


def decode_exactly(encoded: bytes, name: str, reduction: int = 1) -> Image.Image:
    """Decodes as the released evaluation does: Pillow, RGB, EXIF rotation ignored.

    Args:
      encoded: the file's bytes.
      name: for errors.
      reduction: divides the sides of a JPEG, as in `EncodedPhoto.pixels`.

    Raises:
      UserError: if the photo cannot be decoded to its end.
    """

    def decode(data: bytes) -> Image.Image:
        photo = open_encoded(data)
        if reduction != 1:
            photo.draft("RGB", (photo.width // reduction, photo.height // reduction))
        return photo.convert("RGB")

    with _named(name):
        return attempt(encoded, decode)


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
        image = _decode_with_opencv(self.encoded, reduction)
        if image is None:
            image = np.asarray(decode_exactly(self.encoded, self.name, reduction))
        return np.asarray(image, np.uint8)


def _decode_with_opencv(encoded: bytes, reduction: int) -> np.ndarray | None:
    # OpenCV 5.0 allocates a chunk's length before it reads it.
    if is_cut_png(encoded):
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = np.frombuffer(encoded, np.uint8)
    try:
        return cv2.imdecode(pixels, flags | _REDUCED[reduction])
    except cv2.error:
        return None


def read_header(encoded: bytes, name: str) -> EncodedPhoto:
    """Reads the header of a photo that is to be decoded for training.

    Raises:
      UserError: as `open_encoded`; it names the photo.
    """
    shape = jpeg_shape(encoded)
    if shape is None:
        photo = open_photo(encoded, name)
        return EncodedPhoto(encoded, name, (photo.height, photo.width), False)
    with _named(name):
        _check_work(encoded, shape[1], shape[0])
    return EncodedPhoto(encoded, name, shape, True)


def decode_fast(encoded: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes for training.

    Raises:
      UserError: if the photo cannot be decoded to its end, or claims too many pixels.
    """
    return read_header(encoded, name).pixels()
