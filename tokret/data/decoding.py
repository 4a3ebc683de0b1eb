"""Encoded photo -> RGB array, for training (OpenCV) and for evaluation (Pillow).

Evaluation decodes and shrinks with Pillow, as the released code does, so that its
numbers can be compared; training takes the faster decoder.
"""

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.errors import UserError
from tokret.shapes import UInt8

# About 10,000 x 10,000: larger claims are refused before any memory is taken.
MAX_PIXELS = 100_000_000

_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def open_photo(encoded: bytes, name: str) -> ImageFile.ImageFile:
    """Reads a photo's header with Pillow; its pixels are not decoded yet.

    Args:
      encoded: the file's bytes.
      name: what errors call it.

    Raises:
      UserError: if it is not a photo Pillow knows, or claims too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of what we refuse below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            photo = Image.open(io.BytesIO(encoded))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{name} is no photo of a known format ({len(encoded)} bytes); replace or "
            "remove it"
        ) from error
    if photo.width * photo.height > MAX_PIXELS:
        raise UserError(
            f"{name} claims {photo.width} x {photo.height} pixels, more than "
            f"{MAX_PIXELS}; shrink or remove it"
        )
    return photo


def decode_exactly(encoded: bytes, name: str) -> Image.Image:
    """Decodes as the released evaluation does: Pillow, RGB, EXIF rotation ignored.

    Raises:
      UserError: if the photo cannot be decoded to its end.
    """
    photo = open_photo(encoded, name)
    try:
        return photo.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{name} cannot be decoded ({error}); replace or remove it"
        ) from error


class Header(NamedTuple):
    """What a photo says of itself.

    Attributes:
      shape: height and width in pixels, before any EXIF rotation.
      is_jpeg: whether it is a JPEG, which can be decoded at a reduced size.
    """

    shape: tuple[int, int]
    is_jpeg: bool


def read_header(encoded: bytes, name: str) -> Header:
    """Reads a photo's header alone.

    Raises:
      UserError: if it is not a photo Pillow knows, or claims too many pixels.
    """
    photo = open_photo(encoded, name)
    # Cameras with two lenses write MPO: a JPEG that other JPEGs follow.
    return Header((photo.height, photo.width), photo.format in ("JPEG", "MPO"))


def decode_fast(
    encoded: bytes, name: str, reduction: int = 1
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes with OpenCV for training; what OpenCV refuses, with Pillow.

    Args:
      encoded: the file's bytes.
      name: what errors call it.
      reduction: the sides of a JPEG are divided by 1, 2, 4 or 8, rounded up: its blocks
        of 8 x 8 pixels are made smaller, which is antialiased and faster.

    Raises:
      UserError: if the photo cannot be decoded to its end, or claims too many pixels.
    """
    header = read_header(encoded, name)
    if reduction != 1 and not header.is_jpeg:
        # OpenCV would drop pixels of other formats without averaging them.
        raise ValueError(f"{name} is no JPEG and cannot be reduced")
    flags = _REDUCED[reduction] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        pixels = np.asarray(decode_exactly(encoded, name))
        height, width = (-(-side // reduction) for side in header.shape)
        image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)
