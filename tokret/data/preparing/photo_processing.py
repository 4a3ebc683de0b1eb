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
from tokret.data.preparing.photo_files import BadPhotoError

MAX_PIXELS = 100_000_000  # about 10,000 x 10,000; refused before memory is allocated
PILLOWS_PIXELS = 178_956_970  # which Pillow itself refuses to exceed
# Formats of photos, whatever their file names. Pillow knows more, one of which runs
# another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
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
      max_pixels: that a photo may have.

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
        # Photos that are stored as they are must be decoded again by every reader.
        most = PILLOWS_PIXELS if self.resize else MAX_PIXELS
        within("max_pixels", self.max_pixels, 1, most)

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
      The same bytes; or a JPEG or PNG in plain RGB if the photo was shrunk or turned,
      had 16 bits a pixel, or a palette with transparent colours.

    Raises:
      BadPhotoError: if the photo cannot be decoded to its end, or claims too many
        pixels.
    """
    if not encoded:
        raise BadPhotoError("empty")
    if encoded[:256].lstrip().lower().startswith((b"<html", b"<!doctype", b"<?xml")):
        raise BadPhotoError("a web page, not a photo")
    try:
        with warnings.catch_warnings():
            # About odd EXIF and palettes, which are harmless, and sizes refused below.
            warnings.simplefilter("ignore")
            return _process(encoded, processing)
    except BadPhotoError:
        raise
    # A malformed photo ends in nearly any exception of Pillow's plugins.
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise BadPhotoError(f"cannot be decoded: {words}") from error


def _process(encoded: bytes, processing: PhotoProcessing) -> bytes:
    photo = _open(encoded, processing.max_pixels)
    if processing.resize and min(photo.size) > processing.resize:
        return _shrink(photo, processing)
    # Reads all of the data, but decodes only an eighth of a JPEG's pixels.
    photo.draft("L", (1, 1))
    photo.load()
    transpose = _upright(photo, processing)
    # Pillow warns at every read of a palette with transparent colours.
    transparent = photo.mode == "P" and "transparency" in photo.info
    if transpose is None and not _has_16_bits(photo) and not transparent:
        return encoded
    pixels = _rgb(_open(encoded, processing.max_pixels))
    kind = "JPEG" if photo.format in ("JPEG", "MPO") else "PNG"
    return _encode(_transposed(pixels, transpose), kind, UPRIGHT_QUALITY)


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
    return photo.convert("RGB")


def _encode(photo: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _open(encoded: bytes, max_pixels: int) -> ImageFile.ImageFile:
    try:
        photo = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPhotoError("not a photo of a known format") from error
    if photo.width * photo.height > max_pixels:
        raise BadPhotoError(
            f"claims {photo.width} x {photo.height} pixels, more than {max_pixels:,}"
        )
    return photo


def _shrink(photo: ImageFile.ImageFile, processing: PhotoProcessing) -> bytes:
    """Averages areas: antialiased, without ringing, in half the time of LANCZOS."""
    scale = processing.resize / min(photo.size)
    width, height = (round(side * scale) for side in photo.size)
    # A JPEG far larger than this is decoded at a half, a quarter or an eighth.
    photo.draft("RGB", (2 * width, 2 * height))
    pixels = np.asarray(_rgb(photo))
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    upright = _transposed(Image.fromarray(small), _upright(photo, processing))
    return _encode(upright, "JPEG", processing.quality)
