"""`gldv2`: Google Landmarks v2 as a TFDS dataset, from what its hosts distribute.

Weyand et al., CVPR 2020; the clean subset: Yokoo et al., "Two-stage Discriminative
Re-ranking for Large-scale Landmark Retrieval", CVPRW 2020; without what overlaps with
the test sets: Song et al., "On Train-Test Class Overlap and Detection for Image
Retrieval", CVPR 2024.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tokret.config.datasets import GoogleLandmarksConfig
from tokret.data.google_landmarks import photo_lists, photo_locations
from tokret.data.google_landmarks.classes import Classes, make_classes, write_csvs
from tokret.data.google_landmarks.photo_lists import ListedPhotos, photo_name
from tokret.data.preparing import source_files
from tokret.data.preparing.dataset_specs import (
    DatasetContents,
    DatasetSpec,
    LazyList,
    fingerprint,
    photo_features,
)
from tokret.data.preparing.dataset_writer import open_prepared, prepare_dataset
from tokret.data.preparing.photo_files import PhotoLocation, PhotoLocations
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto
from tokret.errors import UserError
from tokret.io.remote.fetching import require
from tokret.io.remote.urls import path_of, shown, url_of

NAME = "gldv2"
LISTS = {
    "clean": "train_clean.csv",
    "no_overlap": "train_clean.csv",
    "full": "train.csv",
}
# Photos and classes: of the hosts; no_overlap of RGLDv2-clean.
PUBLISHED = {
    "clean": (1_580_470, 81_313),
    "no_overlap": (1_578_905, 81_295),
    "full": (4_132_914, 203_094),
}


@dataclasses.dataclass(frozen=True)
class Sources:
    """The files that decide the dataset; photos are in `tars`, or unpacked in `tree`.

    `table` is the CSV of the subset; the last three are files that `prepare` was given.
    """

    root: Path
    subset: str
    table: Path
    tars: Sequence[Path]
    tree: Path | None
    exclude_ids: Path | None
    split: Path | None
    labels: Path | None

    def dated(self) -> list[tuple[str, Path]]:
        """The files, and the names that count, for a fingerprint."""
        found = [(f"photos/{path.name}", path) for path in self.tars]
        if self.tree:
            found += [
                (f"photos/{path.relative_to(self.tree)}", path)
                for path in photo_locations.tree_folders(self.tree)
            ]
        lists = ("table", "exclude_ids", "split", "labels")
        given = [(name, getattr(self, name)) for name in lists]
        return found + [(name, path) for name, path in given if path]


def find_sources(config: GoogleLandmarksConfig) -> Sources:
    """Locates the files below `manual_dir`, where the hosts' scripts put them.

    Raises:
      UserError: names what is missing.
    """
    root, name = path_of(config.manual_dir), LISTS[config.subset]
    tables = [folder / name for folder in (root, root / "metadata", root / "train")]
    table = next(filter(source_files.is_file, tables), None)
    if table is None:
        raise UserError(f"{root} lacks {name}, the list of Google Landmarks v2")
    tars = photo_locations.find_archives(root)
    tree = None if tars else photo_locations.find_tree(root)
    if not tars and url_of(root):
        raise UserError(
            f"{root} contains no tars of Google Landmarks v2, images_000.tar and so "
            "on; photos that were unpacked are read from a disk alone, or from a "
            "mounted bucket"
        )
    if not tars and tree is None:
        raise UserError(
            f"{root} contains no photos of Google Landmarks v2: neither images_000.tar "
            "and so on nor folders like 0/1/2"
        )
    if (config.subset == "no_overlap") != bool(config.exclude_ids):
        raise UserError(
            "exclude_ids is a file of ids for the subset no_overlap, and no other; "
            f"the subset is {config.subset}"
        )
    given = ("exclude_ids", "split", "labels")
    files = {word: _given(word, getattr(config, word)) for word in given}
    return Sources(root, config.subset, table, tars, tree, **files)


def _given(argument: str, text: str) -> Path | None:
    if not text:
        return None
    path = path_of(text)
    if not source_files.is_file(path):
        raise UserError(f"{argument}: {path} is not a file")
    return path


def read_lists(sources: Sources) -> tuple[ListedPhotos, ListedPhotos]:
    """Reads the subset's table: all photos in it, and those that are not excluded.

    Raises:
      UserError: names what is malformed, and the line of it.
    """
    for path in (sources.table, sources.exclude_ids, sources.split, sources.labels):
        if path:
            require(path)
    is_full = sources.subset == "full"
    read = photo_lists.read_full if is_full else photo_lists.read_clean
    everything = read(sources.table)
    listed = everything
    if sources.exclude_ids:
        listed = photo_lists.exclude(everything, sources.exclude_ids)
    if not len(listed.ids):
        raise UserError(f"{sources.exclude_ids} excludes every photo")
    return everything, listed


def _read_contents(sources: Sources, cache: Path, _: Path) -> DatasetContents:
    everything, listed = read_lists(sources)
    classes = make_classes(listed, everything, sources.labels, sources.split)
    locations: PhotoLocations | Path
    if sources.tree:
        locations = sources.tree
        exists = photo_locations.locate_in_tree(listed.ids, locations)
    else:
        locations = photo_locations.locate_in_archives(listed.ids, sources.tars, cache)
        exists = locations.file >= 0
    fetched: dict[str, int] = {}
    if url_of(sources.root):
        sizes = [size for size, _ in source_files.states(sources.tars)]
        fetched = dict(zip(map(str, sources.tars), sizes, strict=True))
    masks = (~classes.held_out & exists, classes.held_out & exists)
    missing = listed.ids[~exists]
    return DatasetContents(
        features=photo_features([str(name) for name in classes.landmarks.tolist()]),
        splits={
            name: _photos(listed.ids, classes.labels, locations, np.flatnonzero(mask))
            for name, mask in zip(("train", "validation"), masks, strict=True)
            if mask.any()
        },
        missing=LazyList(
            len(missing),
            lambda row: Problem(_file(missing[row]), str(sources.root), "missing"),
        ),
        write_beside=functools.partial(write_csvs, listed=listed, classes=classes),
        notes=_notes(sources, listed, classes),
        fetched=fetched,
    )


def _file(photo: np.uint64) -> str:
    return f"{photo_name(int(photo))}.jpg"


def _photos(
    ids: np.ndarray, labels: np.ndarray, places: PhotoLocations | Path, rows: np.ndarray
) -> LazyList[SourcePhoto]:
    """The photos of some rows, in the order in which they are read fastest."""
    if isinstance(places, PhotoLocations):
        # Each tar from its start to its end, once a split.
        rows = rows[np.lexsort((places.offset[rows], places.file[rows]))]

    def photo(number: int) -> SourcePhoto:
        row = int(rows[number])
        if isinstance(places, PhotoLocations):
            location = places[row]
        else:
            path = photo_locations.tree_path(places, int(ids[row]))
            location = PhotoLocation(path)
        return SourcePhoto(_file(ids[row]), location, {"label": int(labels[row])})

    return LazyList(len(rows), photo)


def _notes(sources: Sources, listed: ListedPhotos, classes: Classes) -> list[str]:
    notes = []
    photos, landmarks = PUBLISHED[sources.subset]
    have = len(listed.ids), len(classes.landmarks)
    if have != (photos, landmarks):
        notes.append(
            f"the lists have {have[0]:,} photos in {have[1]:,} classes; published were "
            f"{photos:,} in {landmarks:,}"
        )
    tars, published = len(sources.tars), photo_locations.ARCHIVES
    if tars not in (0, published):
        notes.append(f"there are {tars} tars; published were {published}")
    return notes


def prepare(
    config: GoogleLandmarksConfig, data_dir: Path, workers: int = 0
) -> tfds.core.DatasetBuilder:
    """Prepares Google Landmarks v2, splits train and validation.

    `manual_dir` contains train_clean.csv or train.csv, and images_000.tar to
    images_499.tar or the folders 0 to f from them; also as the hosts' scripts arrange
    them, in metadata/ and train/. "" opens what was prepared before. The tars may be in
    a bucket: each is fetched twice, to list what it contains and to read it.

    Labels are numbers from 0 in the order of the landmarks' ids, which are their names.
    A fifth of each class is for validation, at least one photo; the photo of a class
    that has but one is for training. Both choices are written beside the data, as
    labels.csv and split.csv. Records are in the order of the tars.

    Changes of unpacked photos are detected from the times of their folders: a photo
    that is overwritten, its folder unchanged, is not detected.

    Raises:
      UserError: names what is missing, unreadable or malformed, and the line of it.
    """
    processing = PhotoProcessing(config.resize, config.quality)
    variant = f"{config.subset}-{processing.name()}"
    if not config.manual_dir:
        return open_prepared(data_dir, NAME, variant)
    sources = find_sources(config)
    description = f"Google Landmarks v2, {config.subset}; {processing.description()}"
    spec = DatasetSpec(
        name=NAME,
        variant=variant,
        fingerprint=fingerprint(variant, sources.dated()),
        description=f"{description}; from {shown(sources.root)}",
        processing=processing,
        read_contents=functools.partial(
            _read_contents, sources, data_dir / NAME / "index"
        ),
    )
    return prepare_dataset(spec, data_dir, skip_bad=config.skip_bad, workers=workers)
