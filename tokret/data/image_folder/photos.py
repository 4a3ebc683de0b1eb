"""Which photos there are: those below class folders, or those that a CSV lists."""

import collections
import math
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokret.data.preparing import tables
from tokret.data.preparing.folders import files_below
from tokret.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
BOX = ("x0", "y0", "x1", "y1")
SHOWN = 5  # suffixes that a note names

Box = tuple[float, float, float, float]


class Photo(NamedTuple):
    """A photo with its class.

    Attributes:
      name: its path below the root, or as the table has it.
      path: where it lies, or should.
      label: its class's name.
      box: x0, y0, x1, y1 in pixels of what it asks for as a query; None for all of it.
    """

    name: str
    path: Path
    label: str
    box: Box | None = None


class Found(NamedTuple):
    """Photos, and what is to be said of the others.

    Attributes:
      photos: class by class, or in the table's order.
      notes: in words.
    """

    photos: list[Photo]
    notes: list[str]


def find_photos(root: Path, field: str = "data.root") -> Found:
    """Lists the photos below each class folder of ROOT, classes and photos by name.

    Links are followed, but no folder is entered twice.

    Args:
      root: the folder.
      field: what named it, for errors.

    Raises:
      UserError: if ROOT is no folder, or holds no class folder with photos.
    """
    if not root.is_dir():
        raise UserError(f"{field}: {root} is not a folder; name one of class folders")
    photos, others = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(files_below(folder)):
            if path.suffix.lower() not in SUFFIXES:
                others.append(path)
                continue
            name = path.relative_to(root).as_posix()
            if not name.isprintable():
                raise UserError(
                    f"{field}: {str(path)!r} has a name that is not valid text; "
                    "rename it"
                )
            photos.append(Photo(name, path, folder.name))
    if not photos:
        raise UserError(
            f"{field}: {root} holds no class folder with photos "
            f"({', '.join(SUFFIXES)}); it must look like ROOT/CLASS/PHOTO.jpg"
        )
    return Found(photos, _passed_over(others))


def _passed_over(paths: Sequence[Path]) -> list[str]:
    if not paths:
        return []
    counts = collections.Counter(p.suffix.lower() or "no suffix" for p in paths)
    words = [f"{suffix} {count:,}" for suffix, count in counts.most_common(SHOWN)]
    return [f"{len(paths):,} files are not photos by their names: {', '.join(words)}"]


def read_table(table: Path, root: Path) -> Found:
    """Reads a CSV with the columns path and label, and perhaps x0, y0, x1 and y1.

    Args:
      table: the CSV.
      root: the folder that paths begin from.

    Raises:
      UserError: names the line that is malformed or repeats a path.
    """
    lines: dict[str, int] = {}
    photos = []
    for line, (text, label, *sides) in tables.rows(table, ("path", "label"), BOX):
        name = posixpath.normpath(text)
        if not text or not name.isprintable():
            raise tables.problem(table, line, f"{text[:80]!r} is no photo's path")
        if not label or not label.isprintable():
            raise tables.problem(table, line, f"{label[:80]!r} is no class's name")
        suffix = posixpath.splitext(name)[1].lower()
        if suffix not in SUFFIXES:
            words = f"{name} must end in one of: {', '.join(SUFFIXES)}"
            raise tables.problem(table, line, words)
        if name in lines:
            raise tables.problem(table, line, f"{name} stands in line {lines[name]}")
        lines[name] = line
        photos.append(Photo(name, root / name, label, _box(sides, table, line)))
    if not photos:
        raise UserError(f"{table} names no photo")
    return Found(photos, [])


def _box(sides: Sequence[str], table: Path, line: int) -> Box | None:
    if not any(sides):
        return None
    try:
        x0, y0, x1, y1 = map(float, sides)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
        words = f"{','.join(sides)[:80]} is no box: x0,y0,x1,y1 with x0 < x1, y0 < y1"
        raise tables.problem(table, line, words)
    return x0, y0, x1, y1
