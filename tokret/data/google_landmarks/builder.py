"""`gldv2`: Google Landmarks v2 as a TFDS dataset, from what its hosts distribute.

Weyand et al., CVPR 2020; the clean subset: Yokoo et al., "Two-stage Discriminative
Re-ranking for Large-scale Landmark Retrieval", CVPRW 2020; without what overlaps with
the test sets: Song et al., "On Train-Test Class Overlap and Detection for Image
Retrieval", CVPR 2024.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tokret.arguments import choose
from tokret.data.google_landmarks.classes import (
    SPLITS,
    Classes,
    make_classes,
    write_csvs,
)
from tokret.data.google_landmarks.files import (
    ARCHIVES,
    find_archives,
    find_tree,
    leaves,
    locate_in_archives,
    locate_in_tree,
)
from tokret.data.google_landmarks.lists import (
    Listed,
    exclude_listed,
    read_clean,
    read_full,
)
from tokret.data.google_landmarks.photos import Landmarks, Missing
from tokret.data.preparing import engine
from tokret.data.preparing.photos import Treatment
from tokret.data.preparing.places import Places
from tokret.data.preparing.recipes import Plan, Recipe, fingerprint
from tokret.errors import UserError

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
    """The files that decide the dataset.

    Attributes:
      root: the folder that was named.
      subset: a name in LISTS.
      table: the CSV of the subset.
      tars: the archives, none where photos lie unpacked.
      tree: the folder of unpacked photos, None where there are tars.
      exclude_ids: a list of ids, or None.
      split: a CSV that is given, or None.
      labels: a CSV that is given, or None.
    """

    root: Path
    subset: str
    table: Path
    tars: Sequence[Path]
    tree: Path | None
    exclude_ids: Path | None
    split: Path | None
    labels: Path | None

    def stamped(self) -> list[tuple[str, Path]]:
        """The files, and the names that count, for a fingerprint."""
        found = [(f"photos/{path.name}", path) for path in self.tars]
        if self.tree:
            found += [
                (f"photos/{path.relative_to(self.tree)}", path)
                for path in leaves(self.tree)
            ]
        given = {"table": self.table, "exclude_ids": self.exclude_ids}
        given |= {"split": self.split, "labels": self.labels}
        return found + [(name, path) for name, path in given.items() if path]


def find_sources(
    root: Path, subset: str, exclude_ids: str, split: str, labels: str
) -> Sources:
    """Finds the files in a folder, where the hosts' scripts put them.

    Raises:
      UserError: names what is not there.
    """
    name = LISTS[subset]
    folders = (root, root / "metadata", root / "train")
    table = next((f / name for f in folders if (f / name).is_file()), None)
    if table is None:
        raise UserError(f"{root} lacks {name}, the list of Google Landmarks v2")
    tars = find_archives(root)
    tree = None if tars else find_tree(root)
    if not tars and tree is None:
        raise UserError(
            f"{root} holds no photos of Google Landmarks v2: neither images_000.tar "
            "and so on nor folders like 0/1/2"
        )
    if (subset == "no_overlap") != bool(exclude_ids):
        raise UserError(
            "data.exclude_ids is for the subset no_overlap, which needs it, and for no "
            f"other; the subset is {subset}"
        )
    given = {"exclude_ids": exclude_ids, "split": split, "labels": labels}
    files = {word: _given(word, path) for word, path in given.items()}
    return Sources(root, subset, table, tars, tree, **files)


def _given(field: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"data.{field}: {path} is not a file")
    return path


def read_lists(sources: Sources) -> tuple[Listed, Listed]:
    """Reads the subset's table: all photos of it, and those that are not left out.

    Raises:
      UserError: names what is malformed, and the line of it.
    """
    read = read_full if sources.subset == "full" else read_clean
    everything = read(sources.table)
    listed = everything
    if sources.exclude_ids:
        listed = exclude_listed(everything, sources.exclude_ids)
    if not len(listed.ids):
        raise UserError(f"{sources.exclude_ids} leaves no photo")
    return everything, listed


def _plan(sources: Sources, cache: Path, _: Path) -> Plan:
    everything, listed = read_lists(sources)
    classes = make_classes(listed, everything, sources.labels, sources.split)
    places: Places | Path
    if sources.tree:
        places, there = sources.tree, locate_in_tree(listed.ids, sources.tree)
    else:
        places = locate_in_archives(listed.ids, sources.tars, cache)
        there = places.file >= 0
    photos = Landmarks(listed.ids, classes.labels, places)
    parts = (~classes.held_out & there, classes.held_out & there)
    splits = {
        name: photos.take(np.flatnonzero(part))
        for name, part in zip(SPLITS, parts, strict=True)
        if part.any()
    }
    return Plan(
        features=_features(classes),
        splits=splits,
        missing=Missing(listed.ids[~there], sources.root),
        write_beside=functools.partial(write_csvs, listed=listed, classes=classes),
        notes=_notes(sources, listed, classes),
    )


def _features(classes: Classes) -> tfds.features.FeaturesDict:
    names = [str(landmark) for landmark in classes.landmarks.tolist()]
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=names),
            "filename": tfds.features.Text(),
        }
    )


def _notes(sources: Sources, listed: Listed, classes: Classes) -> list[str]:
    notes = []
    photos, landmarks = PUBLISHED[sources.subset]
    have = len(listed.ids), len(classes.landmarks)
    if have != (photos, landmarks):
        notes.append(
            f"the lists give {have[0]:,} photos in {have[1]:,} classes; published were "
            f"{photos:,} in {landmarks:,}"
        )
    if sources.tars and len(sources.tars) != ARCHIVES:
        notes.append(f"{len(sources.tars)} tars are there; published were {ARCHIVES}")
    return notes


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    subset: str = "clean",
    exclude_ids: str = "",
    split: str = "",
    labels: str = "",
    resize: int = 0,
    quality: int = 90,
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares Google Landmarks v2, splits train and validation.

    Labels are numbers from 0 in the order of the landmarks' ids, which are their names.
    A fifth of each class is for validation, at least one photo; the photo of a class
    that has but one is for training. Both choices are written beside the data, as
    labels.csv and split.csv. Records lie in the order in which the tars hold them.

    Unpacked photos are told from others by the times of their folders: one that is
    changed in its place, the folder left as it was, is not noticed.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with train_clean.csv or train.csv and with images_000.tar
        to images_499.tar, or the folders 0 to f that were in them; the hosts' own
        folders metadata/ and train/ are known. "" takes what was prepared before.
      subset: clean, no_overlap (clean without what `exclude_ids` lists) or full.
      exclude_ids: a file of landmarks' or photos' ids, one a line.
      split: a CSV (id,split) instead of the choice above.
      labels: a CSV (label,landmark_id) instead of the choice above.
      resize: longest that a photo's shorter side may be, in pixels; 0 keeps photos.
      quality: of the JPEGs that shrunk photos become.
      skip_bad: leave out photos that are missing or broken, with a warning and a list
        of them.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed, and the line of it.
    """
    choose(LISTS, subset, "data.subset")
    treatment = Treatment(resize, quality).checked()
    variant = f"{subset}-{treatment.name()}"
    if not manual_dir:
        return engine.require_prepared(Path(data_dir), NAME, variant)
    root = Path(manual_dir).expanduser()
    sources = find_sources(root, subset, exclude_ids, split, labels)
    recipe = Recipe(
        name=NAME,
        variant=variant,
        fingerprint=fingerprint(variant, sources.stamped()),
        description=(
            f"Google Landmarks v2, {subset}; {treatment.description()}; from {root}"
        ),
        treatment=treatment,
        plan=functools.partial(_plan, sources, Path(data_dir) / NAME / "index"),
    )
    return engine.prepare(recipe, data_dir, skip_bad=skip_bad, workers=workers)
