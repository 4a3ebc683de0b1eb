"""`image_folder`: anybody's photos, by folder or by table, as a TFDS dataset."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from tokret.data.image_folder.photos import Found, Photo, find_photos, read_table
from tokret.data.image_folder.splits import Lists, Splits, share_out
from tokret.data.preparing import engine
from tokret.data.preparing.photos import MAX_PIXELS, Place, Treatment
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.recipes import Plan, Recipe
from tokret.data.preparing.shards import Item
from tokret.errors import UserError


def find(root: str, table: str) -> tuple[Path, Found]:
    """Finds the photos of class folders or of a table.

    Args:
      root: the folder; "" is that of the table.
      table: a CSV; "" takes the class folders.

    Returns:
      What the dataset is made of, folder or table, and its photos.

    Raises:
      UserError: if nothing is named, or what is named is not there.
    """
    if not root and not table:
        raise UserError(
            "data.root is empty; name a folder of class folders: "
            "--config.data.root=PHOTOS, or a CSV: --config.data.table=FILE"
        )
    folder = Path(root).expanduser().resolve()
    if not table:
        return folder, find_photos(folder)
    path = Path(table).expanduser().resolve()
    if root and not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder")
    return path, read_table(path, folder if root else path.parent)


def fingerprint(splits: Splits, treatment: Treatment) -> str:
    """Names a state of the photos: other files, sizes or times give another name."""
    digest = hashlib.sha256(repr(treatment).encode())
    for split, photos in splits._asdict().items():
        for photo in photos:
            entry = (split, photo.name, photo.label, photo.box, _stamp(photo.path))
            digest.update(repr(entry).encode())
    return digest.hexdigest()[:12]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:  # missing, or a link that leads nowhere: found so when it is read
        return None
    return info.st_size, info.st_mtime_ns


class _Labelled(NamedTuple):
    """Photos of each split, and how they are stored."""

    splits: Splits
    notes: list[str]

    def plan(self, _: Path) -> Plan:
        classes = self.splits.classes()
        labels = {name: label for label, name in enumerate(classes)}
        missing: list[Problem] = []
        there = Splits([], [], [])
        for photos, kept in zip(self.splits, there, strict=True):
            for photo in photos:
                if os.path.lexists(photo.path):
                    kept.append(photo)
                else:
                    missing.append(Problem(photo.name, str(photo.path), "missing"))
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                # -1 for a class that is not trained.
                "label": tfds.features.ClassLabel(names=classes),
                "filename": tfds.features.Text(),
            }
        )
        splits = {
            split: [_item(photo, labels.get(photo.label, -1)) for photo in photos]
            for split, photos in there._asdict().items()
            if photos
        }

        def metadata(left_out: Mapping[str, set[int]]) -> dict[str, Any]:
            gone = left_out.get("benchmark", set())
            kept = [p for i, p in enumerate(there.benchmark) if i not in gone]
            return {"leave_one_out": leave_one_out(kept)} if kept else {}

        return Plan(features, splits, missing, metadata, notes=self.notes)


def _item(photo: Photo, label: int) -> Item:
    return Item(photo.name, Place(str(photo.path)), {"label": label})


def leave_one_out(photos: list[Photo]) -> dict[str, Any]:
    """What finding photos among each other needs to know, as metadata keeps it."""
    classes = sorted({photo.label for photo in photos})
    numbers = {name: number for number, name in enumerate(classes)}
    return {
        "classes": classes,
        "labels": [numbers[photo.label] for photo in photos],
        "boxes": [photo.box for photo in photos],
    }


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    root: str = "",
    table: str = "",
    validation_fraction: float = 0.2,
    train_list: str = "",
    validation_list: str = "",
    benchmark_list: str = "",
    benchmark_classes: str = "",
    benchmark_fraction: float = 0.0,
    benchmark_root: str = "",
    exif: bool = True,
    max_pixels: int = MAX_PIXELS,
    resize: int = 0,
    quality: int = 90,
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Brings photos of your own into a dataset; once for each of their states.

    Splits train, validation and, where asked for, benchmark: its photos are not trained
    on, and each asks all the others for those of its class, with its box if it has one.
    Lists hold one path a line, as below root or in the table, or are a .csv with a
    column path.

    Args:
      data_dir: where prepared datasets lie.
      root: the folder, ROOT/CLASS/**/PHOTO.jpg (also jpeg, png, webp), or that of the
        paths in a table.
      table: a CSV with a heading, path,label and perhaps x0,y0,x1,y1 (a query's box in
        pixels of the photo upright); paths begin from root, or else from its folder.
      validation_fraction: share of each class that is held out for validation; 0 puts
        every photo into `train`.
      train_list: a list of photos to train on; the others are not.
      validation_list: a list of photos for validation, instead of the fraction.
      benchmark_list: a list of photos for the benchmark.
      benchmark_classes: a list of classes, one a line, that are for the benchmark.
      benchmark_fraction: share of the classes that are for the benchmark.
      benchmark_root: another folder of class folders, whose photos are the benchmark.
      exif: turn photos as their EXIF orientation says.
      max_pixels: that a photo may have; a larger one is bad.
      resize: longest that a photo's shorter side may be, in pixels; 0 keeps photos.
      quality: of the JPEGs that shrunk photos become.
      skip_bad: leave out missing or broken photos, with a warning and a list of them.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: if there are no classes, a list does not fit, or a photo is missing or
        cannot be decoded.
    """
    lists = Lists(
        *(validation_fraction, train_list, validation_list),
        *(benchmark_list, benchmark_classes, benchmark_fraction),
        benchmark_root,
    ).checked()
    treatment = Treatment(resize, quality, exif, max_pixels).checked()
    path, found = find(root, table)
    splits = share_out(found.photos, lists)
    notes = found.notes + _left_out(found, splits)
    if benchmark_root:
        elsewhere = _find_elsewhere(benchmark_root, splits)
        splits = splits._replace(benchmark=elsewhere.photos)
        notes += elsewhere.notes
    if resize and any(photo.box for photo in splits.benchmark):
        raise UserError(
            f"data.resize: {path} has boxes, in pixels of the photos as they are; "
            "leave them at their sizes, resize=0"
        )
    shrunk = f"-{treatment.name()}" if resize else ""
    recipe = Recipe(
        name="image_folder",
        variant=f"{path.name}{shrunk}",
        fingerprint=fingerprint(splits, treatment),
        description=str(path),
        treatment=treatment,
        plan=_Labelled(splits, notes).plan,
    )
    return engine.prepare(recipe, data_dir, skip_bad=skip_bad, workers=workers)


def _find_elsewhere(benchmark_root: str, splits: Splits) -> Found:
    """The benchmark's photos, in a folder of their own.

    Raises:
      UserError: if a photo is trained on too, or no class has two to find.
    """
    folder = Path(benchmark_root).expanduser().resolve()
    found = find_photos(folder, "data.benchmark_root")
    known = {photo.path.resolve() for photo in splits.train + splits.validation}
    for photo in found.photos:
        if photo.path.resolve() in known:
            raise UserError(
                f"data.benchmark_root: {photo.path} is trained on too, it lies in "
                "data.root; name a folder apart from that"
            )
    if len({photo.label for photo in found.photos}) == len(found.photos):
        raise UserError(
            f"data.benchmark_root: no class in {folder} has two photos, so none can be "
            "found"
        )
    return found


def _left_out(found: Found, splits: Splits) -> list[str]:
    others = len(found.photos) - sum(map(len, splits))
    return [f"{others:,} photos are in no list, and in no split"] if others else []
