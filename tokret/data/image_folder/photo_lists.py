"""Which photos exist: those below class folders, or those that a CSV lists."""

import collections
import math
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokret.data.photo_formats import SUFFIXES
from tokret.data.preparing import csv_files
from tokret.data.preparing.folders import files_below
from tokret.data.views import Box
from tokret.errors import UserError

BOX = ("x0", "y0", "x1", "y1")
NOTED_SUFFIXES = 5


class Photo(NamedTuple):
    """A photo that may not exist: named by its path below the root, or in the table.

    `label` is its class's name; `box` is for queries, None for the whole photo.
    """

    name: str
    path: Path
    label: str
    box: Box | None = None


class PhotoList(NamedTuple):
    """Photos, class by class or in a table's order, and notes on other files."""

    photos: list[Photo]
    notes: list[str]


def find_photos(root: Path, argument: str = "root") -> PhotoList:
    """Lists the photos below each class folder of ROOT, classes and photos by name.

    Links are followed, but no folder is entered twice. Errors name the argument.

    Raises:
      UserError: if ROOT is not a folder, or has no class folder with photos.
    """
    if not root.is_dir():
        raise UserError(f"{argument}: {root} is not a folder of class folders")
    photos, others = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(files_below(folder)):
            if path.suffix.lower() not in SUFFIXES:
                others.append(path)
                continue
            name = path.relative_to(root).as_posix()
            if not name.isprintable():
                raise UserError(
                    f"{argument}: {str(path)!r} has a name that is not valid text; "
                    "rename it"
                )
            photos.append(Photo(name, path, folder.name))
    if not photos:
        raise UserError(
            f"{argument}: {root} has no class folder with photos "
            f"({', '.join(SUFFIXES)}); it must look like ROOT/CLASS/PHOTO.jpg"
        )
    return PhotoList(photos, _note(others))


def _note(paths: Sequence[Path]) -> list[str]:
    if not paths:
        return []
    counts = collections.Counter(p.suffix.lower() or "no suffix" for p in paths)
    words = [f"{s} {count:,}" for s, count in counts.most_common(NOTED_SUFFIXES)]
    return [f"{len(paths):,} files are not photos by their names: {', '.join(words)}"]


def read_table(table: Path, root: Path) -> PhotoList:
    """Reads a CSV with the columns path and label, and perhaps x0, y0, x1 and y1.

    Paths are relative to `root`.

    Raises:
      UserError: names the line that is malformed or repeats a path.
    """
    lines: dict[str, int] = {}
    photos = []
    for line, (text, label, *sides) in csv_files.read_rows(
        table, ("path", "label"), BOX
    ):
        name = posixpath.normpath(text)
        if not text or not name.isprintable():
            raise csv_files.line_error(table, line, f"{text[:80]!r} is no photo's path")
        if not label or not label.isprintable():
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
    return PhotoList(photos, [])


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
