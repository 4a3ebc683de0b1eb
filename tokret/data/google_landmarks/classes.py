"""Google Landmarks v2's classes, and which photos of each are for validation."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.google_landmarks import photo_lists
from tokret.data.google_landmarks.photo_lists import ListedPhotos, photo_name
from tokret.data.preparing import csv_files
from tokret.errors import UserError

HELD_OUT = 5  # one photo in five of each class is for validation
SPLITS = ("train", "validation")


class Classes(NamedTuple):
    """[C] int64 landmarks of the labels; of N photos int64 labels and bool held_out."""

    landmarks: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray


def make_classes(
    listed: ListedPhotos,
    everything: ListedPhotos,
    labels: Path | None,
    split: Path | None,
) -> Classes:
    """Numbers the landmarks, and holds photos out for validation.

    Args:
      listed: the photos.
      everything: these and the excluded ones, which `split` may name too.
      labels: a CSV (label,landmark_id); None numbers the landmarks by their ids.
      split: a CSV (id,split); None holds out a fifth of each class.

    Raises:
      UserError: names what is wrong, and the line.
    """
    if labels is None:
        landmarks, numbers = np.unique(listed.landmarks, return_inverse=True)
    else:
        landmarks = _read_labels(labels)
        numbers = _numbers(listed.landmarks, landmarks, labels)
    if split is None:
        chosen = held_out(listed.ids, numbers)
    else:
        chosen = _read_split(split, listed, everything)
    return Classes(landmarks, numbers, chosen)


def held_out(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Chooses a fifth of each class's photos, rounded, for validation.

    At least one of two or more; the only photo of a class is for training. By a hash of
    the [N] uint64 ids, so that few choices change when photos are added or removed.
    """
    order = np.lexsort((_hashed(ids), labels))
    counts = np.bincount(labels)
    wanted = np.maximum(1, (2 * counts + HELD_OUT) // (2 * HELD_OUT))
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    starts = np.cumsum(counts) - counts
    ranks = np.arange(len(ids)) - starts[labels[order]]
    chosen = np.empty(len(ids), bool)
    chosen[order] = ranks < wanted[labels[order]]
    return chosen


def _hashed(ids: np.ndarray) -> np.ndarray:
    """The finishing step of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = (ids ^ (ids >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _read_labels(path: Path) -> np.ndarray:
    """The landmark of each label; every number from 0 must have one."""
    found: dict[int, int] = {}
    landmarks: set[int] = set()
    for line, (label, landmark) in csv_files.read_rows(path, ("label", "landmark_id")):
        number = csv_files.parse_number(label, path, line, "label")
        landmark_id = csv_files.parse_number(landmark, path, line, "landmark_id")
        if number in found or landmark_id in landmarks:
            raise csv_files.line_error(path, line, "repeats a label or a landmark")
        found[number] = landmark_id
        landmarks.add(landmark_id)
    if sorted(found) != list(range(len(found))) or not found:
        raise UserError(f"{path}: the labels are not the numbers from 0")
    return np.array([found[label] for label in range(len(found))], np.int64)


def _numbers(landmarks: np.ndarray, known: np.ndarray, path: Path) -> np.ndarray:
    order = np.argsort(known)
    rows = np.searchsorted(known[order], landmarks).clip(max=len(known) - 1)
    labels = order[rows]
    unknown = np.unique(landmarks[known[labels] != landmarks])
    if len(unknown):
        raise UserError(
            f"{path} has no label for {len(unknown):,} landmarks: "
            f"{', '.join(map(str, unknown[:10].tolist()))}"
        )
    return labels


def _read_split(
    path: Path, listed: ListedPhotos, everything: ListedPhotos
) -> np.ndarray:
    """Which photos a file holds out."""

    def entries() -> Iterator[tuple[int, int, int]]:
        for line, (text, split) in csv_files.read_rows(path, ("id", "split")):
            if split not in SPLITS:
                words = f"{split[:40]!r} is neither {' nor '.join(SPLITS)}"
                raise csv_files.line_error(path, line, words)
            yield line, photo_lists.photo_id(text, path, line), SPLITS.index(split)

    rows = photo_lists.collect(entries(), path)
    _, known = photo_lists.find(everything.ids, rows.ids)
    if not known.all():
        row = int(np.flatnonzero(~known)[np.argmin(rows.lines[~known])])
        name = photo_name(int(rows.ids[row]))
        raise csv_files.line_error(
            path, int(rows.lines[row]), f"photo {name} is not in the dataset"
        )
    found, listed_too = photo_lists.find(rows.ids, listed.ids)
    if not listed_too.all():
        lacking = [photo_name(photo) for photo in listed.ids[~listed_too][:10].tolist()]
        raise UserError(
            f"{path} lacks {np.sum(~listed_too):,} photos: {', '.join(lacking)}"
        )
    return rows.values[found] == SPLITS.index("validation")


def write_csvs(folder: Path, listed: ListedPhotos, classes: Classes) -> None:
    """Writes split.csv and labels.csv, which other preparations can be given."""
    splits = (SPLITS[held] for held in classes.held_out.tolist())
    names = map(photo_name, listed.ids.tolist())
    csv_files.write_rows(
        folder / "split.csv", ("id", "split"), zip(names, splits, strict=True)
    )
    labels = enumerate(classes.landmarks.tolist())
    csv_files.write_rows(folder / "labels.csv", ("label", "landmark_id"), labels)
