"""Google Landmarks v2's lists: photos, their landmarks, and which are excluded.

Weyand et al., "Google Landmarks Dataset v2", CVPR 2020. Ids of photos are 16
hexadecimal digits and are kept as 64-bit numbers: the four million rows of train.csv
take 100 MB here, and some GB as strings.
"""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.preparing import csv_files
from tokret.errors import UserError

PHOTO = re.compile(r"[0-9a-f]{16}")


class ListedPhotos(NamedTuple):
    """Photos in order of id: [N] uint64 ids, [N] int64 landmarks."""

    ids: np.ndarray
    landmarks: np.ndarray


def photo_name(number: int) -> str:
    """A photo's id as 16 hexadecimal digits."""
    return f"{number:016x}"


def photo_id(text: str, path: Path, line: int) -> int:
    """Reads a photo's id.

    Raises:
      UserError: if it is not one.
    """
    if not PHOTO.fullmatch(text):
        raise csv_files.line_error(
            path, line, f"{text[:40]!r} is no photo's id, 16 of the digits 0-9 and a-f"
        )
    return int(text, 16)


def read_full(path: Path) -> ListedPhotos:
    """Reads train.csv (id,url,landmark_id).

    Raises:
      UserError: names the line that is malformed, or repeats an id.
    """

    def entries() -> Iterator[tuple[int, int, int]]:
        for line, (photo, landmark) in csv_files.read_rows(path, ("id", "landmark_id")):
            number = csv_files.parse_number(landmark, path, line, "landmark_id")
            yield line, photo_id(photo, path, line), number

    return ListedPhotos(*collect(entries(), path)[:2])


def read_clean(path: Path) -> ListedPhotos:
    """Reads train_clean.csv (landmark_id,images: ids with spaces between them).

    Raises:
      UserError: names the line that is malformed, or repeats a landmark or an id.
    """

    def entries() -> Iterator[tuple[int, int, int]]:
        lines: dict[str, int] = {}
        for line, (text, images) in csv_files.read_rows(
            path, ("landmark_id", "images")
        ):
            landmark = csv_files.parse_number(text, path, line, "landmark_id")
            csv_files.add_unique(lines, f"landmark {landmark}", path, line)
            for photo in images.split():
                yield line, photo_id(photo, path, line), landmark

    return ListedPhotos(*collect(entries(), path)[:2])


class Rows(NamedTuple):
    """Rows in order of id: [N] uint64 unique ids, [N] int64 values and line numbers."""

    ids: np.ndarray
    values: np.ndarray
    lines: np.ndarray


def collect(entries: Iterator[tuple[int, int, int]], path: Path) -> Rows:
    """Collects a file's rows (line, id, value) in arrays.

    Raises:
      UserError: if there are none, or names the line that repeats an id.
    """
    lines, ids, values = array("q"), array("Q"), array("q")
    for line, photo, value in entries:
        lines.append(line)
        ids.append(photo)
        values.append(value)
    if not ids:
        raise UserError(f"{path} names no photo")
    numbers = np.frombuffer(ids, np.uint64)
    order = np.argsort(numbers, kind="stable")
    rows = Rows(
        numbers[order],
        np.frombuffer(values, np.int64)[order],
        np.frombuffer(lines, np.int64)[order],
    )
    repeated = np.flatnonzero(rows.ids[1:] == rows.ids[:-1])
    if len(repeated):
        row = int(repeated[np.argmin(rows.lines[repeated + 1])])
        raise csv_files.line_error(
            path,
            int(rows.lines[row + 1]),
            f"photo {photo_name(int(rows.ids[row]))} is in line {rows.lines[row]} too",
        )
    return rows


def find(ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Looks up [M] uint64 ids among [N] others, which are in order, N > 0.

    Returns [M] int64 rows of `ids`, and [M] bool: whether the row is the wanted one.
    """
    rows = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
    return rows, ids[rows] == wanted


def exclude(listed: ListedPhotos, path: Path) -> ListedPhotos:
    """Removes what a file lists, one landmark's or photo's id a line.

    Of a line with commas the first field counts; the first line may be a heading.

    Raises:
      UserError: names the line that is neither, or an id that is not in the dataset.
    """
    kept = np.ones(len(listed.ids), bool)
    known = set(np.unique(listed.landmarks).tolist())
    landmarks = set()
    for line, text in _first_fields(path):
        if PHOTO.fullmatch(text):
            row, found = find(listed.ids, np.array([int(text, 16)], np.uint64))
            words, is_known = f"photo {text}", bool(found[0])
            kept[row] = False
        else:
            column = "a landmark's or photo's id"
            landmark = csv_files.parse_number(text, path, line, column)
            words, is_known = f"landmark {text}", landmark in known
            landmarks.add(landmark)
        if not is_known:
            raise csv_files.line_error(path, line, f"{words} is not in the dataset")
    kept &= ~np.isin(listed.landmarks, sorted(landmarks))
    return ListedPhotos(listed.ids[kept], listed.landmarks[kept])


def _first_fields(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in csv_files.read_lines(path):
        text = line.partition(",")[0].strip()
        is_heading = (
            number == 1 and not text[:1].isdigit() and not PHOTO.fullmatch(text)
        )
        if text and not is_heading:
            yield number, text
