"""`image_folder`: anybody's photos, one folder a class, as a TFDS dataset."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from tokret.data import preparation
from tokret.data.decoding import decode_exactly
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


class ImageFolder(tfds.core.GeneratorBasedBuilder):
    """Photos in class folders, split per class into train and validation."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        root: Path,
        classes: dict[str, list[Path]],
        validation_fraction: float,
        **kwargs: Any,
    ):
        self._root = root
        self._classes = classes
        self._fraction = validation_fraction
        self._validates = any(
            held_out(len(photos), validation_fraction, label)
            for label, photos in enumerate(classes.values())
        )
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=list(self._classes)),
                "filename": tfds.features.Text(),
            }
        )
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        # disable=None: no bar where standard error is no terminal.
        total = sum(map(len, self._classes.values()))
        self._bar = tqdm(total=total, desc=self.name, unit="photo", disable=None)
        splits = {"train": self._examples(validation=False)}
        if self._validates:
            splits["validation"] = self._examples(validation=True)
        return splits

    def _generate_examples(self) -> None:
        raise AssertionError("the splits bring their own generators")

    def _examples(self, *, validation: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        for label, photos in enumerate(self._classes.values()):
            chosen = held_out(len(photos), self._fraction, label)
            for i, photo in enumerate(photos):
                if (i in chosen) == validation:
                    yield key, self._example(photo, label)
                    key += 1
                    self._bar.update()
        if validation == self._validates:  # the last split
            self._bar.close()

    def _example(self, photo: Path, label: int) -> dict[str, Any]:
        encoded = photo.read_bytes()
        decode_exactly(encoded, str(photo))  # a broken photo is named here, not later
        filename = str(photo.relative_to(self._root))
        return {"image": encoded, "label": label, "filename": filename}


def prepare(
    data_dir: str | os.PathLike[str], *, root: str, validation_fraction: float = 0.2
) -> tfds.core.DatasetBuilder:
    """Brings a folder of class folders into a dataset; once for each of its states.

    Args:
      data_dir: where prepared datasets lie.
      root: the folder, ROOT/CLASS/**/PHOTO.jpg (also jpeg, png, webp).
      validation_fraction: share of each class that is held out for validation; 0 puts
        every photo into `train`.

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
    path = Path(root).expanduser().resolve()
    classes = find_photos(path)
    name = f"{path.name}-{fingerprint(path, classes, validation_fraction)}"
    config = tfds.core.BuilderConfig(name=name, description=str(path))
    builder = ImageFolder(
        root=path,
        classes=classes,
        validation_fraction=validation_fraction,
        data_dir=os.fspath(data_dir),
        config=config,
    )
    preparation.prepare(builder, sum(map(len, classes.values())))
    return builder
