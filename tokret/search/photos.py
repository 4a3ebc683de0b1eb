"""The photos below a folder, turned upright as their EXIF requires."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.decoding import MAX_PIXELS, attempt, open_encoded
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.views import Box, LazyViews, Size, View, photo_digest
from tokret.errors import UserError
from tokret.shapes import UInt8


class Stamp(NamedTuple):
    """Size in bytes and time in ns of a file: if they differ, it has changed."""

    size: int
    modified: int


def read_stamp(path: str | Path) -> Stamp:
    """The stamp of a file; 0, 0 if it cannot be read."""
    try:
        info = os.stat(path)
    except OSError:
        return Stamp(0, 0)
    return Stamp(info.st_size, info.st_mtime_ns)


def read_digest(path: Path) -> str | None:
    """A digest of a photo's file, which is not decoded; None if it cannot be read."""
    try:
        with PhotoReader() as reader:
            return photo_digest(reader.read(PhotoLocation(str(path))))
    except BadPhotoError:
        return None


@dataclasses.dataclass(frozen=True)
class FileView(View):
    """A view of a photo as it was turned upright."""

    file_digest: str  # of the file as it is

    @property
    def digest(self) -> str:
        """A digest of the photo's file."""
        return self.file_digest


def read_view(
    path: Path,
    name: str,
    box: Box | None,
    longest_side: int,
    max_pixels: int = MAX_PIXELS,
) -> View:
    """Reads a part (or all) of a photo in any of the formats.

    Args:
      path: the photo.
      name: for errors.
      box: the part, in pixels of the upright photo; None for all.
      longest_side: of the whole photo after shrinking, in pixels.
      max_pixels: that the photo may have, as in `PhotoProcessing`.

    Raises:
      UserError: if it cannot be read or decoded, or the box is not inside it.
    """
    try:
        with PhotoReader() as reader:
            content = reader.read(PhotoLocation(str(path)))
    except BadPhotoError as error:
        raise UserError(f"{name}: {error}") from error
    return upright_view(content, name, box, longest_side, max_pixels)


def upright_view(
    content: bytes,
    name: str,
    box: Box | None,
    longest_side: int,
    max_pixels: int = MAX_PIXELS,
) -> View:
    """A part (or all) of a photo, given its file's bytes; arguments as `read_view`.

    Raises:
      UserError: if it cannot be decoded, or the box is not inside it.
    """
    try:
        processing = PhotoProcessing(upright=True, max_pixels=max_pixels)
        encoded = process_photo(content, processing)
    except BadPhotoError as error:
        raise UserError(f"{name}: {error}") from error
    view = FileView(encoded, name, None, longest_side, photo_digest(content))
    if box is None:
        return view
    whole = attempt(content, lambda data: open_encoded(data, max_pixels)).size
    return dataclasses.replace(view, box=_fit_box(box, whole, view))


def _fit_box(box: Box, whole: Size, view: View) -> Box:
    """A box in pixels of a photo's file as one of the view, which may be smaller."""
    size = view.whole_size()
    # The view is upright, which the file's width and height may not be.
    width, height = sorted(whole, reverse=size[0] >= size[1])
    x0, y0, x1, y1 = box
    if x1 > width or y1 > height:
        raise UserError(
            f"box={','.join(f'{side:g}' for side in box)} is not inside {view.name}, "
            f"which is {width} x {height} pixels, upright"
        )
    if (width, height) == size:
        return box
    x, y = size[0] / width, size[1] / height
    return x0 * x, y0 * y, x1 * x, y1 * y


@dataclasses.dataclass(frozen=True)
class UnreadableView(View):
    """A view of a photo that cannot be read; `error` is the reason."""

    error: str

    def whole_size(self) -> Size:
        """Raises the error."""
        raise UserError(self.error)

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """Raises the error."""
        raise UserError(self.error)


def view_of(
    path: Path, name: str, longest_side: int, max_pixels: int = MAX_PIXELS
) -> View:
    """Reads a whole photo; the view of an unreadable one raises an error when used."""
    try:
        return read_view(path, name, None, longest_side, max_pixels)
    except UserError as error:
        return UnreadableView(b"", name, None, longest_side, str(error))


def photo_views(
    root: Path, names: Sequence[str], longest_side: int, max_pixels: int = MAX_PIXELS
) -> LazyViews:
    """Views of photos, as `view_of`, by their names relative to a folder."""

    def read(row: int) -> View:
        return view_of(root / names[row], names[row], longest_side, max_pixels)

    return LazyViews(len(names), read)
