"""One photo on its way into a dataset: checked, turned upright, shrunk.

Whatever is wrong with a photo ends in `BadPhotoError` with a few words: a dataset of a
million photos has bad ones of every kind, and none of them may end a run.
"""

import dataclasses
import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageFile

from tokret.arguments import within
from tokret.data.decoding import MAX_PIXELS, attempt, open_encoded
from tokret.data.preparing.photo_files import BadPhotoError
from tokret.data.views import Size

# Pixels in memory at once: some 2 GB, of which Pillow's own limit is the measure.
MAX_HELD_PIXELS = 178_956_970
MOST_PIXELS = 65_535**2  # of a JPEG
UPRIGHT_QUALITY = 95  # of a JPEG that was turned
_ORIENTATION = 0x0112
_TRANSPOSE = {  # EXIF 2.32, 4.6.4 A
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class PhotoProcessing:
    """How photos are processed once, before they are stored.

    Attributes:
      resize: the shorter side in pixels where it is longer; 0 keeps every photo as is.
      quality: of the JPEG that a shrunk photo becomes, 1 to 95.
      upright: turn photos according to their EXIF orientation, which tokret's decoders
        ignore, as the evaluation of the benchmarks does.
      max_pixels: that a photo may have. One of more than `MAX_PIXELS`, the default,
        becomes a JPEG of half its sides (or a quarter, an eighth) if `resize` is 0:
        every reader of stored photos decodes them whole.

    Raises:
      UserError: if a number is out of range.
    """

    resize: int = 0
    quality: int = 90
    upright: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        within("resize", self.resize, 0, 2**15)
        within("quality", self.quality, 1, 95)
        within("max_pixels", self.max_pixels, 1, MOST_PIXELS)

    def name(self) -> str:
        """For a dataset's name: `original` or `512px-q90`."""
        return f"{self.resize}px-q{self.quality}" if self.resize else "original"

    def description(self) -> str:
        """For a dataset's description."""
        if not self.resize:
            return "original photos"
        return (
            f"shorter side at most {self.resize} px (area averages), JPEG quality "
            f"{self.quality} where shrunk"
        )


def process_photo(encoded: bytes, processing: PhotoProcessing) -> bytes:
    """Checks a photo, turns it upright and shrinks it.

    Returns:
      The same bytes, without metadata that a decoder refuses; or a JPEG or PNG in plain
      RGB if the photo was shrunk or turned, is a HEIC, or had 16 bits a pixel or a
      palette with transparent colours.

    Raises:
      BadPhotoError: if the photo cannot be decoded to its end, claims too many pixels,
        or takes too much work or memory to decode.
    """
    if not encoded:
        raise BadPhotoError("empty")
    if encoded[:256].lstrip().lower().startswith((b"<html", b"<!doctype", b"<?xml")):
        raise BadPhotoError("a web page, not a photo")
    with warnings.catch_warnings():
        # About odd EXIF and palettes, which are harmless.
        warnings.simplefilter("ignore")
        return attempt(encoded, lambda data: _process(data, processing))


def _process(encoded: bytes, processing: PhotoProcessing) -> bytes:
    photo = open_encoded(encoded, processing.max_pixels)
    target = _smaller_size(photo.size, processing.resize)
    if target is not None:
        return _shrink(photo, target, processing)
    # Reads all of the data, but decodes only an eighth of a JPEG's pixels.
    photo.draft("L", (1, 1))
    photo.load()
    transpose = _upright(photo, processing)
    # Pillow warns at every read of a palette with transparent colours.
    transparent = photo.mode == "P" and "transparency" in photo.info
    # Readers of what is stored need no plugin.
    converted = photo.format == "HEIF" or _has_16_bits(photo) or transparent
    if transpose is None and not converted:
        return encoded
    pixels = _rgb(open_encoded(encoded))
    kind = "JPEG" if photo.format in ("JPEG", "MPO", "HEIF") else "PNG"
    return _encode(_transposed(pixels, transpose), kind, UPRIGHT_QUALITY)


def _smaller_size(size: Size, resize: int) -> Size | None:
    """The width and height that a photo is shrunk to; None to keep them."""
    if resize and min(size) > resize:
        scale = resize / min(size)
        return round(size[0] * scale), round(size[1] * scale)
    reduction = 1
    while size[0] * size[1] > MAX_PIXELS * reduction**2:
        reduction *= 2
    if reduction == 1:
        return None
    return size[0] // reduction, size[1] // reduction


def _upright(
    photo: ImageFile.ImageFile, processing: PhotoProcessing
) -> Image.Transpose | None:
    """The operation that turns a photo upright; None if there is none."""
    if not processing.upright:
        return None
    try:
        return _TRANSPOSE.get(photo.getexif().get(_ORIENTATION, 1))
    # Malformed EXIF has no orientation, and is no reason to lose a photo.
    except Exception:
        return None


def _transposed(photo: Image.Image, operation: Image.Transpose | None) -> Image.Image:
    return photo if operation is None else photo.transpose(operation)


def _has_16_bits(photo: Image.Image) -> bool:
    return photo.mode.startswith("I")


def _rgb(photo: Image.Image) -> Image.Image:
    """Converts to RGB; Pillow's `convert` clips 16 bits to 255 instead of scaling."""
    if _has_16_bits(photo):
        photo = Image.fromarray((np.asarray(photo) >> 8).clip(0, 255).astype(np.uint8))
    # Of a photo in RGB already, `convert` would make a copy.
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def _encode(photo: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _shrink(
    photo: ImageFile.ImageFile, size: Size, processing: PhotoProcessing
) -> bytes:
    """Averages areas: antialiased, without ringing, in half the time of LANCZOS."""
    _reduce(photo, size, averaged=bool(processing.resize))
    pixels = np.asarray(_rgb(photo))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    upright = _transposed(Image.fromarray(small), _upright(photo, processing))
    quality = processing.quality if processing.resize else UPRIGHT_QUALITY
    return _encode(upright, "JPEG", quality)


def _reduce(photo: ImageFile.ImageFile, size: Size, averaged: bool) -> None:
    """Has a JPEG decoded at a half, a quarter or an eighth if it is far larger.

    If `averaged`, at twice the size at least, unless that is too large for memory.

    Raises:
      BadPhotoError: if more than `MAX_HELD_PIXELS` would be in memory even so.
    """
    width, height = photo.size
    shrinking = min(width // size[0], height // size[1]) // 2
    most = max(step for step in (1, 2, 4, 8) if step <= max(1, shrinking))
    gap = 2 if averaged and width * height <= MAX_HELD_PIXELS * most**2 else 1
    photo.draft("RGB", (gap * size[0], gap * size[1]))
    # The coefficients of a progressive JPEG are held whole, whatever its size then.
    progressive = "progressive" in photo.info
    held = width * height if progressive else photo.width * photo.height
    if held > MAX_HELD_PIXELS:
        raise BadPhotoError(
            f"claims {width} x {height} pixels; above {MAX_HELD_PIXELS:,} only a "
            "baseline JPEG is read, at half its sides or less"
        )
