"""Uploaded photos -> files below the root: whole, of safe and new names."""

import contextlib
import os
import re
import unicodedata
from pathlib import Path

from tokret.data.folders import CATALOGUE, PARTS, PhotoWalk
from tokret.io.atomic_files import sync_folder
from tokret.io.drafts import make_draft
from tokret.search.service.problems import Problem

SUFFIXES = {  # by Pillow's name of the format
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIF": ".heic",
}
LONGEST = 80  # characters of a name without its suffix
MOST = 1000  # files of the same name


def make_folder(root: Path, folder: str) -> Path:
    """Makes a folder below a root, if it is missing.

    Raises:
      Problem: 400 if it is not below the root, or an index would skip its photos.
    """
    walk, whole = PhotoWalk(root), root.resolve()
    names = [name for name in folder.split("/") if name]
    for name in names:
        if (
            name in (".", "..")
            or len(name.encode()) > 255
            or not walk.accepts(root / name)
        ):
            raise Problem(
                400, f"folder has a part that is not allowed: {name}", "folder"
            )
    target = root.joinpath(*names)
    try:
        # The part that exists, before anything is made in it.
        place = target.resolve()
        if not place.is_relative_to(whole):
            raise Problem(400, "folder is not below the index's root", "folder")
        inner = [path for path in (place, *place.parents) if path != whole]
        if any(_is_index(path) for path in inner if path.is_relative_to(whole)):
            raise Problem(400, "folder is in an index; name one of photos", "folder")
        target.mkdir(parents=True, exist_ok=True)
        return target.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        raise Problem(400, "folder cannot be made below the root", "folder") from error


def _is_index(folder: Path) -> bool:
    return (folder / CATALOGUE).exists() and (folder / PARTS).exists()


def safe_name(given: str, suffix: str) -> str:
    """A file name of letters, digits, spaces and a few signs, of one given anywhere."""
    stem = unicodedata.normalize("NFC", re.split(r"[/\\]", given)[-1])
    stem = re.sub(r"[^\w ()+,-]", "_", stem.rpartition(".")[0] or stem)
    stem = stem.strip(" _")[:LONGEST].encode()[:200].decode(errors="ignore")
    return (stem.strip(" ") or "photo") + suffix


def save_photo(folder: Path, given: str, kind: str, content: bytes) -> Path:
    """Writes a photo to a new file, whole.

    Args:
      folder: of `make_folder`.
      given: the name that the upload has.
      kind: the format, as Pillow names it.
      content: the file's bytes.

    Raises:
      Problem: 422 for another format, 507 if the file cannot be written.
    """
    if kind not in SUFFIXES:
        raise Problem(422, f"photos of the format {kind} are not indexed", "photo")
    name = safe_name(given, SUFFIXES[kind])
    try:
        draft = make_draft(folder / name)
        with contextlib.ExitStack() as stack:
            stack.callback(draft.unlink, missing_ok=True)
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            path = _link(draft, folder, name)
        sync_folder(folder)
    except OSError as error:
        why = error.strerror or "the disk failed"
        raise Problem(507, f"the photo cannot be saved: {why}", "photo") from error
    return path


def _link(draft: Path, folder: Path, name: str) -> Path:
    """Gives a draft the first name that no file has: nothing is ever replaced."""
    stem, dot, suffix = name.rpartition(".")
    for number in range(1, MOST):
        path = folder / (name if number == 1 else f"{stem}-{number}{dot}{suffix}")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
            return path
    raise Problem(507, f"there are {MOST} photos of this name", "photo")
