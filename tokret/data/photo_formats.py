"""Formats of photos that are read, and the suffixes of their files."""

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
