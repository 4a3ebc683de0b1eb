"""Encoded photo -> RGB array, for training (OpenCV) and for evaluation (Pillow).

Evaluation decodes and shrinks with Pillow, as the released code does, so that its
numbers can be compared; training takes the faster decoder.
"""

import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.errors import UserError
from tokret.shapes import UInt8

# About 10,000 x 10,000: larger claims are refused before any memory is taken.
MAX_PIXELS = 100_000_000


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


def decode_fast(encoded: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes with OpenCV for training.

    Raises:
      UserError: if the photo cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{name} cannot be decoded ({error.err})") from error
    if image is None:
        raise UserError(f"{name} cannot be decoded; replace or remove it")
    return np.asarray(image, np.uint8)
