"""`image_folder`: any photos, by class folder or by table, as a TFDS dataset."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tokret.config.datasets import ImageFolderConfig
from tokret.data.decoding import MAX_PIXELS
from tokret.data.image_folder.photo_lists import (
    Photo,
    PhotoList,
    find_photos,
    read_table,
)
from tokret.data.image_folder.splits import Splits, split_photos
from tokret.data.preparing.dataset_specs import (
    DatasetContents,
    DatasetSpec,
    photo_features,
)
from tokret.data.preparing.dataset_writer import open_prepared, prepare_dataset
from tokret.data.preparing.destinations import log
from tokret.data.preparing.photo_files import PhotoLocation
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto
from tokret.data.preparing.source_files import PhotoFiles
from tokret.errors import UserError
from tokret.io.remote.urls import path_of, shown, url_of

NAME = "image_folder"


def list_photos(root: str, table: str) -> tuple[Path, PhotoList]:
    """Returns the folder or table, one of which is given, and its photos.

    Raises:
      UserError: if it does not exist.
    """
    folder = path_of(root).resolve()
    if not table:
        return folder, find_photos(folder)
    path = path_of(table).resolve()
    if root and url_of(folder) is None and not folder.is_dir():
        raise UserError(f"root: {folder} is not a folder")
    return path, read_table(path, folder if root else path.parent)


def fingerprint(splits: Splits, files: PhotoFiles, processing: PhotoProcessing) -> str:
    """Identifies a state of the photos; other files, sizes or times change it."""
    digest = hashlib.sha256(repr(processing).encode())
    for split, photos in splits._asdict().items():
        for photo in photos:
            state = files.state(photo.path)
            entry = (split, photo.name, photo.label, photo.box, state)
            digest.update(repr(entry).encode())
    return digest.hexdigest()[:12]


def _read_contents(splits: Splits, files: PhotoFiles, _: Path) -> DatasetContents:
    classes = splits.classes()
    labels = {name: label for label, name in enumerate(classes)}
    existing = Splits(
        *([p for p in photos if files.exist(p.path)] for photos in splits)
    )

    def metadata(skipped: Mapping[str, set[int]]) -> dict[str, Any]:
        rows = skipped.get("benchmark", set())
        kept = [p for i, p in enumerate(existing.benchmark) if i not in rows]
        return {"leave_one_out": leave_one_out(kept)} if kept else {}

    return DatasetContents(
        features=photo_features(classes),
        splits={
            split: [
                SourcePhoto(
                    photo.name,
                    PhotoLocation(str(photo.path)),
                    # -1 for a class without training photos.
                    {"label": labels.get(photo.label, -1)},
                )
                for photo in photos
            ]
            for split, photos in existing._asdict().items()
            if photos
        },
        missing=[
            Problem(photo.name, str(photo.path), "missing")
            for photos in splits
            for photo in photos
            if not files.exist(photo.path)
        ],
        metadata=metadata,
        fetched=files.fetched(),
    )


def leave_one_out(photos: list[Photo]) -> dict[str, Any]:
    """The metadata of a leave-one-out benchmark."""
    classes = sorted({photo.label for photo in photos})
    numbers = {name: number for number, name in enumerate(classes)}
    return {
        "classes": classes,
        "labels": [numbers[photo.label] for photo in photos],
        "boxes": [photo.box for photo in photos],
    }


def prepare(
    config: ImageFolderConfig, data_dir: Path, workers: int = 0
) -> tfds.core.DatasetBuilder:
    """Prepares photos of any folder or table; once for each of their states.

    Without a folder and a table the only dataset that was prepared before is opened,
    with the splits and the processing that it has.

    The folder is ROOT/CLASS/**/PHOTO.jpg (also png, webp, gif, bmp, tiff, avif, heic);
    hidden files and folders are skipped. A table is a CSV with a heading, path,label
    and perhaps x0,y0,x1,y1 (a query's box in pixels of the upright photo); its paths
    are relative to root, or else to the table's folder.

    Splits train, validation and, where selected, benchmark: its photos are not trained
    on, and each is a query (with its box, if it has one) whose positives are the other
    photos of its class. Lists have one path a line, as below root or in the table, or
    are a .csv with a column path.

    Raises:
      UserError: if there are no classes, a list does not fit, or a photo is missing or
        cannot be decoded.
    """
    if not config.root and not config.table:
        builder = open_prepared(
            data_dir, NAME, "", "root", "a folder of class folders, or set table"
        )
        # A config whose root was forgotten would pass unnoticed otherwise.
        log(f"note: {shown(Path(builder.data_path))} was prepared before")
        return builder
    processing = PhotoProcessing(
        config.resize, config.quality, config.exif, config.max_pixels
    )
    path, found = list_photos(config.root, config.table)
    splits = split_photos(found.photos, config)
    notes, files = found.notes, found.files
    others = len(found.photos) - sum(map(len, splits))
    if others:
        notes = [*notes, f"{others:,} photos are in no list, and in no split"]
    if config.benchmark_root:
        benchmark = _benchmark_photos(config.benchmark_root, splits)
        splits = splits._replace(benchmark=benchmark.photos)
        files |= benchmark.files
        notes = notes + [f"benchmark_root: {note}" for note in benchmark.notes]
    if any(photo.box for photo in splits.benchmark):
        _check_boxes_fit(config, path)
    shrunk = f"-{processing.name()}" if config.resize else ""
    spec = DatasetSpec(
        name=NAME,
        variant=f"{path.name}{shrunk}",
        fingerprint=fingerprint(splits, files, processing),
        description=shown(path),
        processing=processing,
        read_contents=functools.partial(_read_contents, splits, files),
        notes=notes,
    )
    return prepare_dataset(spec, data_dir, skip_bad=config.skip_bad, workers=workers)


def _check_boxes_fit(config: ImageFolderConfig, path: Path) -> None:
    """Refuses to shrink photos with boxes, which are in pixels of the original ones."""
    words = f"{path} has boxes in pixels of the original photos; set it to"
    if config.resize:
        raise UserError(f"resize: {words} 0")
    if config.max_pixels > MAX_PIXELS:
        raise UserError(f"max_pixels: {words} {MAX_PIXELS:,}, above which they shrink")


def _benchmark_photos(benchmark_root: str, splits: Splits) -> PhotoList:
    """The benchmark's photos, in a folder of their own.

    Raises:
      UserError: if a photo is trained on too, no class has two photos, or all photos
        are of one class.
    """
    folder = path_of(benchmark_root).resolve()
    found = find_photos(folder, "benchmark_root")
    known = {photo.path.resolve() for photo in splits.train + splits.validation}
    for photo in found.photos:
        if photo.path.resolve() in known:
            raise UserError(
                f"benchmark_root: {photo.path} is trained on too, it is in root; "
                "choose another folder"
            )
    classes = {photo.label for photo in found.photos}
    if len(classes) == 1:
        raise UserError(
            f"benchmark_root: all photos in {folder} are of one class, every photo is "
            "relevant, so this measures nothing; set it to a folder with one folder "
            "per class"
        )
    if len(classes) == len(found.photos):
        raise UserError(
            f"benchmark_root: no class in {folder} has two photos, so there are no "
            "positives"
        )
    return found
