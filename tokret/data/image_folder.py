"""`image_folder`: anybody's photos, one folder a class, as a TFDS dataset."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tokret.data import preparation
from tokret.data.photos import Place, Treatment
from tokret.data.recipes import Plan, Recipe
from tokret.data.shards import Item
from tokret.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_photos(root: Path) -> dict[str, list[Path]]:
    """Lists the photos below each class folder of ROOT, classes and photos by name.

    Raises:
      UserError: if ROOT is no folder, or holds no class folder with photos.
    """
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder; name one of class folders")
    classes = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        photos = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        for path in photos:
            if not path.as_posix().isprintable():
                raise UserError(
                    f"data.root: {str(path)!r} has a name that is not valid text; "
                    "rename it"
                )
        if photos:
            classes[folder.name] = photos
    if not classes:
        raise UserError(
            f"data.root: {root} holds no class folder with photos "
            f"({', '.join(SUFFIXES)}); it must look like ROOT/CLASS/PHOTO.jpg"
        )
    return classes


def fingerprint(root: Path, classes: dict[str, list[Path]], fraction: float) -> str:
    """Names a state of the folder: other files, sizes or times give another name."""
    digest = hashlib.sha256(repr(fraction).encode())
    for photos in classes.values():
        for photo in photos:
            stat = photo.stat()
            entry = (str(photo.relative_to(root)), stat.st_size, stat.st_mtime_ns)
            digest.update(repr(entry).encode())
    return digest.hexdigest()[:12]


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


class _Folder(NamedTuple):
    """The photos of class folders, and which of them are for validation."""

    root: Path
    classes: dict[str, list[Path]]
    fraction: float

    def plan(self, _: Path) -> Plan:
        splits: dict[str, list[Item]] = {"train": [], "validation": []}
        for label, photos in enumerate(self.classes.values()):
            chosen = held_out(len(photos), self.fraction, label)
            for i, photo in enumerate(photos):
                split = splits["validation" if i in chosen else "train"]
                name = str(photo.relative_to(self.root))
                split.append(Item(name, Place(str(photo)), {"label": label}))
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=list(self.classes)),
                "filename": tfds.features.Text(),
            }
        )
        return Plan(features, {name: items for name, items in splits.items() if items})


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    root: str,
    validation_fraction: float = 0.2,
    resize: int = 0,
    quality: int = 90,
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Brings a folder of class folders into a dataset; once for each of its states.

    Args:
      data_dir: where prepared datasets lie.
      root: the folder, ROOT/CLASS/**/PHOTO.jpg (also jpeg, png, webp).
      validation_fraction: share of each class that is held out for validation; 0 puts
        every photo into `train`.
      resize: longest that a photo's shorter side may be, in pixels; 0 keeps photos.
      quality: of the JPEGs that shrunk photos become.
      skip_bad: leave out broken photos, with a warning and a list of them.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: if the folder has no classes, or a photo cannot be decoded.
    """
    if not root:
        raise UserError(
            "data.root is empty; name a folder of class folders: "
            "--config.data.root=PHOTOS"
        )
    if not 0 <= validation_fraction < 1:
        raise UserError(
            f"data.validation_fraction is {validation_fraction}; it must be in [0, 1)"
        )
    treatment = Treatment(resize, quality).checked()
    path = Path(root).expanduser().resolve()
    classes = find_photos(path)
    shrunk = f"-{treatment.name()}" if resize else ""
    recipe = Recipe(
        name="image_folder",
        variant=f"{path.name}{shrunk}",
        fingerprint=fingerprint(path, classes, validation_fraction),
        description=str(path),
        treatment=treatment,
        plan=_Folder(path, classes, validation_fraction).plan,
    )
    return preparation.prepare(recipe, data_dir, skip_bad=skip_bad, workers=workers)
