"""Which photos exist: those below class folders, or those that a CSV lists."""

import math
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tokret.data.folders import PhotoWalk
from tokret.data.photo_formats import SUFFIXES
from tokret.data.preparing import csv_files
from tokret.data.preparing.source_files import PhotoFiles
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.io.remote.fetching import require
from tokret.io.remote.urls import url_of
from tokret.names import counted, first_names, is_valid_name

BOX = ("x0", "y0", "x1", "y1")


class Photo(NamedTuple):
    """A photo that may not exist: named by its path below the root, or in the table.

    `label` is its class's name; `box` is for queries, None for the whole photo.
    """

    name: str
    path: Path
    label: str
    box: Box | None = None


class PhotoList(NamedTuple):
    """Photos, class by class or in a table's order; notes on classes and others."""

    photos: list[Photo]
    notes: list[str]
    files: PhotoFiles = PhotoFiles()  # of all photos


def find_photos(root: Path, argument: str = "root") -> PhotoList:
    """Lists the photos below each class folder of ROOT, classes and photos by name.

    Links are followed, but no folder is entered twice. What `PhotoWalk` skips, and
    photos directly in ROOT, are in the notes. Errors name the argument.

    Raises:
      UserError: if ROOT is not a folder, or has no class folder with photos.
    """
    files = PhotoFiles.below(root)
    if not root.is_dir() and not files.listed:
        raise UserError(f"{argument}: {root} is not a folder of class folders")
    walk, direct = PhotoWalk(root, [*files.listed] if url_of(root) else None), []
    if url_of(root):
        paths = sorted(walk.photos())
        direct = [path.name for path in paths if path.parent == root]
        found = [path for path in paths if path.parent != root]
    else:
        entries = [path for path in sorted(root.iterdir()) if walk.accepts(path)]
        folders = [folder for folder in entries if folder.is_dir()]
        found = [path for f in folders for path in sorted(walk.photos(f))]
        direct = [p.name for p in entries if not p.is_dir() and walk.is_photo(p)]
    names = [path.relative_to(root).as_posix() for path in found]
    photos = [
        Photo(name, path, name.partition("/")[0])
        for name, path in zip(names, found, strict=True)
    ]
    notes = [*_notes_on_classes(photos, root), *walk.notes()]
    if direct:
        notes.append(
            f"{counted(len(direct), 'photo')} skipped, directly in {root} and in no "
            f"class folder: {first_names(direct)}"
        )
    if not photos:
        others = "".join(f"; {note}" for note in notes)
        raise UserError(
            f"{argument}: {root} has no class folder with photos "
            f"({', '.join(SUFFIXES)}); it must look like ROOT/CLASS/PHOTO.jpg{others}"
        )
    return PhotoList(photos, notes, files)


def _notes_on_classes(photos: Sequence[Photo], root: Path | None = None) -> list[str]:
    """The classes' number and first names; a hint where they may be the wrong ones."""
    classes = sorted({photo.label for photo in photos})
    if not classes:
        return []
    notes = [
        f"{counted(len(photos), 'photo')} of "
        f"{counted(len(classes), 'class', 'classes')}: {first_names(classes)}"
    ]
    inner = list(dict.fromkeys(photo.name.rpartition("/")[0] for photo in photos))
    if root and all("/" in folder for folder in inner):
        notes.append(
            "no class folder has photos directly in it; if the classes are one level "
            f"deeper ({first_names(inner)}), choose one of: "
            f"{first_names([str(root / name) for name in classes], None)}"
        )
    return notes


def read_table(table: Path, root: Path) -> PhotoList:
    """Reads a CSV with the columns path and label, and perhaps x0, y0, x1 and y1.

    Paths are relative to `root`.

    Raises:
      UserError: names the line that is malformed or repeats a path.
    """
    lines: dict[str, int] = {}
    photos, files = [], PhotoFiles.below(root)
    for line, (text, label, *sides) in csv_files.read_rows(
        require(table), ("path", "label"), BOX
    ):
        name = existing_path(text, lambda path: files.exist(root / path))
        if not is_valid_name(text):
            raise csv_files.line_error(table, line, f"{text[:80]!r} is no photo's path")
        if not is_valid_name(label):
            raise csv_files.line_error(
                table, line, f"{label[:80]!r} is no class's name"
            )
        suffix = posixpath.splitext(name)[1].lower()
        if suffix not in SUFFIXES:
            words = f"{name} must end in one of: {', '.join(SUFFIXES)}"
            raise csv_files.line_error(table, line, words)
        csv_files.add_unique(lines, name, table, line)
        photos.append(Photo(name, root / name, label, _box(sides, table, line)))
    if not photos:
        raise UserError(f"{table} names no photo")
    return PhotoList(photos, _notes_on_classes(photos), files)


def existing_path(text: str, exists: Callable[[str], bool]) -> str:
    """A path from a list in the spelling that exists; as it is where none does.

    Windows separates folders by backslashes; macOS decomposes letters with accents
    (Unicode's form D) where others compose them (form C).
    """
    as_is = posixpath.normpath(text)
    if text.isascii() and "\\" not in text:
        return as_is
    path = posixpath.normpath(text.replace("\\", "/"))
    forms = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    return next(filter(exists, (as_is, path, *forms)), path)


def _box(sides: Sequence[str], table: Path, line: int) -> Box | None:
    if not any(sides):
        return None
    try:
        x0, y0, x1, y1 = map(float, sides)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
        words = f"{','.join(sides)[:80]} is no box: x0,y0,x1,y1 with x0 < x1, y0 < y1"
        raise csv_files.line_error(table, line, words)
    return x0, y0, x1, y1
