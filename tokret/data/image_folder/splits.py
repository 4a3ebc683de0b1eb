"""Which photos are trained on, held out for validation, or found among each other."""

import hashlib
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.image_folder.photos import Photo
from tokret.data.preparing import tables
from tokret.errors import UserError


class Lists(NamedTuple):
    """How photos are shared out; "" and 0 ask for nothing.

    Attributes:
      validation_fraction: share of each class for validation.
      train_list: a file of paths.
      validation_list: a file of paths; no fraction then.
      benchmark_list: a file of paths.
      benchmark_classes: a file of classes' names.
      benchmark_fraction: share of the classes.
      benchmark_root: a folder of class folders of its own, whose photos are no others'.
    """

    validation_fraction: float
    train_list: str
    validation_list: str
    benchmark_list: str
    benchmark_classes: str
    benchmark_fraction: float
    benchmark_root: str = ""

    def checked(self) -> "Lists":
        """Returns it, its numbers checked.

        Raises:
          UserError: if one is out of range, or the benchmark is named in two ways.
        """
        for field in ("validation_fraction", "benchmark_fraction"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise UserError(f"data.{field} is {value}; it must be in [0, 1)")
        ways = ("list", "classes", "fraction", "root")
        fields = [f"benchmark_{way}" for way in ways]
        given = [f"data.{field}" for field in fields if getattr(self, field)]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude each other; name one")
        return self


class Splits(NamedTuple):
    """Photos of each split, each in the order they came in."""

    train: list[Photo]
    validation: list[Photo]
    benchmark: list[Photo]

    def classes(self) -> list[str]:
        """The names of the classes that are trained, in order."""
        return sorted({photo.label for photo in self.train})


def share_out(photos: Sequence[Photo], lists: Lists) -> Splits:
    """Shares photos out; those that no given list names are in no split.

    Raises:
      UserError: names a line of a list that is not among the photos or their classes, a
        photo in two lists, or a class of validation without photos to train on.
    """
    names = {photo.name for photo in photos}
    listed = {
        field: read_list(getattr(lists, field), names, "photo", paths=True)
        for field in ("train_list", "validation_list", "benchmark_list")
    }
    _reject_twice(listed)
    asked = listed["benchmark_list"] or _of_classes(photos, lists)
    rest = [photo for photo in photos if photo.name not in asked]
    held = listed["validation_list"]
    train = listed["train_list"] or names - held
    kept = [photo for photo in rest if photo.name in train]
    if not lists.validation_list:
        held = _fraction(kept, lists.validation_fraction)
    splits = Splits(
        train=[photo for photo in kept if photo.name not in held],
        validation=[photo for photo in rest if photo.name in held],
        benchmark=[photo for photo in photos if photo.name in asked],
    )
    _reject_untrained(splits)
    return splits


def read_list(text: str, known: set[str], kind: str, paths: bool = False) -> set[str]:
    """Reads a list, one entry a line, or the column `path` of a .csv.

    Args:
      text: the file's path; "" gives nothing.
      known: what may be in it.
      kind: what an entry is, for errors.
      paths: whether entries are paths, and `.csv` is read as such.

    Raises:
      UserError: if it cannot be read, or names a line that is not known or repeated.
    """
    if not text:
        return set()
    path = Path(text).expanduser()
    is_csv = paths and path.suffix.lower() == ".csv"
    entries = (
        ((line, value) for line, (value,) in tables.rows(path, ("path",)))
        if is_csv
        else tables.lines(path)
    )
    found: dict[str, int] = {}
    for line, value in entries:
        entry = posixpath.normpath(value) if paths else value
        if entry not in known:
            raise tables.problem(path, line, f"there is no {kind} {entry[:80]!r}")
        if entry in found:
            words = f"{entry[:80]} stands in line {found[entry]} too"
            raise tables.problem(path, line, words)
        found[entry] = line
    if not found:
        raise UserError(f"{path} names no {kind}")
    return set(found)


def _reject_twice(listed: dict[str, set[str]]) -> None:
    seen: dict[str, str] = {}
    for field, names in listed.items():
        for name in sorted(names & set(seen)):
            raise UserError(f"{name} is in data.{seen[name]} and in data.{field}")
        seen |= dict.fromkeys(names, field)


def _of_classes(photos: Sequence[Photo], lists: Lists) -> set[str]:
    """The photos of the classes that are for the benchmark."""
    classes = {photo.label for photo in photos}
    chosen = read_list(lists.benchmark_classes, classes, "class")
    if lists.benchmark_fraction:
        chosen = choose_classes(classes, lists.benchmark_fraction)
    return {photo.name for photo in photos if photo.label in chosen}


def choose_classes(classes: set[str], fraction: float) -> set[str]:
    """Chooses some of two or more classes, at least one and not all.

    Decided by a mixture of each name, so that a class's part changes little when others
    come or go.
    """
    ordered = sorted(classes, key=lambda name: hashlib.sha256(name.encode()).digest())
    wanted = min(max(1, round(len(classes) * fraction)), len(classes) - 1)
    return set(ordered[:wanted])


def _fraction(photos: Sequence[Photo], fraction: float) -> set[str]:
    """A share of each class, for validation."""
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

    At least one of two or more, never the last one left to train on; decided by the
    label's number and the class's size alone.

    Args:
      count: photos of the class.
      fraction: share to hold out; 0 holds out none.
      label: the class's number.
    """
    wanted = min(max(1, round(count * fraction)), count - 1) if fraction > 0 else 0
    order = np.random.default_rng([label, count]).permutation(count)
    return {int(i) for i in order[:wanted]}


def _reject_untrained(splits: Splits) -> None:
    if not splits.train:
        raise UserError("data: no photo is left to train on; look at the lists")
    trained = set(splits.classes())
    for photo in splits.validation:
        if photo.label not in trained:
            raise UserError(
                f"{photo.name} is for validation, and no photo of its class "
                f"{photo.label} to train on; list some, or leave it out"
            )
