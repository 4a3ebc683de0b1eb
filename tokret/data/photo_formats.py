"""Formats of photos that are read, the suffixes of their files, and opening them."""

import functools
import io

from PIL import Image, ImageFile

from tokret.data.preparing.photo_files import BadPhotoError

# The suffixes of each format by Pillow's name for it; files are read by their contents,
# whatever their suffix. Pillow knows more formats, one of which runs another program.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),  # needs pillow-heif, the extra `heic`
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# What photos are often confused with, by the first bytes.
_OTHERS = {
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
}


def open_format(encoded: bytes) -> ImageFile.ImageFile:
    """Reads a photo's header with Pillow's plugin for its format; decodes no pixels.

    Unlike `Image.open`, it reports the plugin's own reason for refusing a photo, and
    leaves the limit on pixels to the caller.

    Raises:
      BadPhotoError: no plugin knows it, or the one that does refuses it.
    """
    if _is_heic(encoded) and not _heic_is_read():
        raise BadPhotoError(
            "not readable here: HEIC needs pillow-heif, pip install pillow-heif"
        )
    Image.init()
    reason = "not a photo of a known format"
    for start, name in _OTHERS.items():
        if encoded.startswith(start):
            reason = f"a {name} file, which is not read; convert it to JPEG or PNG"
    for name in filter(Image.OPEN.__contains__, FORMATS):
        factory, accepts = Image.OPEN[name]
        accepted = accepts is None or accepts(encoded[:16])
        if isinstance(accepted, str):  # why the installed Pillow cannot read it
            reason = accepted
        elif accepted:
            try:
                return factory(io.BytesIO(encoded), "")
            # A malformed photo ends in nearly any exception of Pillow's plugins.
            except Exception as error:
                reason = f"cannot be read as {name}: {error_words(error)}"
    raise BadPhotoError(reason)


def error_words(error: Exception) -> str:
    """Returns an error's message in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_heic(encoded: bytes) -> bool:
    """Whether one of the file's brands (ISO/IEC 23008-12, annex B) is HEVC's."""
    size = int.from_bytes(encoded[:4], "big")
    brands = encoded[8 : min(size, 256)] if encoded[4:8] == b"ftyp" else b""
    return b"hei" in brands or b"hev" in brands


@functools.cache
def _heic_is_read() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
