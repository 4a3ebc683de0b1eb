"""Which photos are for training, for validation, and for a leave-one-out benchmark."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokret.config.datasets import ImageFolderConfig
from tokret.data.image_folder.photo_lists import Photo, existing_path
from tokret.data.preparing import csv_files
from tokret.errors import UserError
from tokret.io.remote.fetching import require
from tokret.io.remote.urls import path_of


class Splits(NamedTuple):
    """Photos of each split, in their original order."""

    train: list[Photo]
    validation: list[Photo]
    benchmark: list[Photo]

    def classes(self) -> list[str]:
        """The names of the classes of the training photos, in order."""
        return sorted({photo.label for photo in self.train})


def split_photos(photos: Sequence[Photo], config: ImageFolderConfig) -> Splits:
    """Splits photos; where lists are given, photos in none of them are in no split.

    Raises:
      UserError: names a line of a list that is not among the photos or their classes, a
        photo in two lists, or a class with validation photos and no training photos.
    """
    names = {photo.name for photo in photos}
    listed = {
        field: read_list(getattr(config, field), names, "photo", paths=True)
        for field in ("train_list", "validation_list", "benchmark_list")
    }
    _reject_repeated(listed)
    benchmark = listed["benchmark_list"] or _benchmark_classes(photos, config)
    rest = [photo for photo in photos if photo.name not in benchmark]
    held = listed["validation_list"]
    train = listed["train_list"] or names - held
    kept = [photo for photo in rest if photo.name in train]
    if not config.validation_list:
        held = _validation_fraction(kept, config.validation_fraction)
    splits = Splits(
        train=[photo for photo in kept if photo.name not in held],
        validation=[photo for photo in rest if photo.name in held],
        benchmark=[photo for photo in photos if photo.name in benchmark],
    )
    _reject_untrained(splits)
    return splits


def read_list(text: str, known: set[str], kind: str, paths: bool = False) -> set[str]:
    """Reads a list of known entries, one a line; "" is an empty list.

    With `paths`, entries are paths, and a .csv file has them in its column `path`;
    `kind` names an entry in errors.

    Raises:
      UserError: if it cannot be read, or a line is unknown or repeated.
    """
    if not text:
        return set()
    path = require(path_of(text))
    entries = csv_files.read_lines(path)
    if paths and path.suffix.lower() == ".csv":
        entries = (
            (line, value) for line, (value,) in csv_files.read_rows(path, ("path",))
        )
    found: dict[str, int] = {}
    for line, value in entries:
        entry = existing_path(value, known.__contains__) if paths else value
        if entry not in known:
            raise csv_files.line_error(path, line, f"there is no {kind} {entry[:80]!r}")
        csv_files.add_unique(found, entry, path, line)
    if not found:
        raise UserError(f"{path} names no {kind}")
    return set(found)


def _reject_repeated(listed: dict[str, set[str]]) -> None:
    seen: dict[str, str] = {}
    for field, names in listed.items():
        for name in sorted(names & set(seen)):
            raise UserError(f"{field}: {name} is in {seen[name]} too")
        seen |= dict.fromkeys(names, field)


def _benchmark_classes(photos: Sequence[Photo], config: ImageFolderConfig) -> set[str]:
    """The photos of the classes that are for the benchmark."""
    classes = {photo.label for photo in photos}
    chosen = read_list(config.benchmark_classes, classes, "class")
    if config.benchmark_fraction:
        chosen = choose_classes(classes, config.benchmark_fraction)
    return {photo.name for photo in photos if photo.label in chosen}


def choose_classes(classes: set[str], fraction: float) -> set[str]:
    """Chooses some of two or more classes, at least one and not all.

    By a hash of each name, so that few choices change when classes come or go.
    """
    ordered = sorted(classes, key=lambda name: hashlib.sha256(name.encode()).digest())
    wanted = min(max(1, round(len(classes) * fraction)), len(classes) - 1)
    return set(ordered[:wanted])


def _validation_fraction(photos: Sequence[Photo], fraction: float) -> set[str]:
    """The names of a fraction of each class's photos."""
    classes: dict[str, list[str]] = {}
    for photo in photos:
        classes.setdefault(photo.label, []).append(photo.name)
    return {
        names[i]
        for label, (_, names) in enumerate(sorted(classes.items()))
        for i in held_out(len(names), fraction, label)
    }


def held_out(count: int, fraction: float, label: int) -> set[int]:
    """Chooses which of a class's photos are for validation.

    At least one of two or more, never the last one left for training; decided by the
    label's number and the class's size alone.
    """
    wanted = min(max(1, round(count * fraction)), count - 1) if fraction > 0 else 0
    order = np.random.default_rng([label, count]).permutation(count)
    return {int(i) for i in order[:wanted]}


def _reject_untrained(splits: Splits) -> None:
    if not splits.train:
        raise UserError("no photo is left for training; check the lists")
    trained = set(splits.classes())
    for photo in splits.validation:
        if photo.label not in trained:
            raise UserError(
                f"{photo.name} is for validation, and no photo of its class "
                f"{photo.label} is for training; list some, or remove it"
            )
