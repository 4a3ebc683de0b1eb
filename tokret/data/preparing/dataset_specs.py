"""A dataset before and after its sources are read: `DatasetSpec`, `DatasetContents`."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from tokret.data.preparing import source_files
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto

T = TypeVar("T")
# TFDS strips labels when it reads them: a class "a\u00a0" would become "a".
_EDGES = re.compile(r"\A\s+|\s+\Z")


class LazyList(Sequence[T]):
    """Items that are made when they are read, since there may be millions."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._rows, self._make = range(length), make

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        rows = self._rows[row]
        return (
            self._make(rows) if isinstance(rows, int) else list(map(self._make, rows))
        )


@dataclasses.dataclass(frozen=True)
class DatasetContents:
    """What a dataset contains."""

    features: tfds.features.FeaturesDict  # of every split; see `photo_features`
    splits: Mapping[str, Sequence[SourcePhoto]]  # by name, their photos in order
    missing: Sequence[Problem] = ()  # photos that should be in them and were not found
    # returns the dataset's metadata, given the skipped rows of each split
    metadata: Callable[[Mapping[str, set[int]]], dict[str, Any]] = lambda _: {}
    # writes further files into the dataset's folder
    write_beside: Callable[[Path], None] = lambda _: None
    notes: Sequence[str] = ()  # oddities of the sources that are not errors
    # of photos in a bucket, the sizes of the files that are fetched to read them
    fetched: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A dataset before its sources are read."""

    name: str  # of the dataset
    variant: str  # of the dataset, in a word that a folder's name can contain
    fingerprint: str  # of sources and options, from `fingerprint`
    description: str  # of the dataset, in words
    processing: PhotoProcessing  # of each photo
    # lists the contents; its argument is a folder for temporary files
    read_contents: Callable[[Path], DatasetContents]
    notes: Sequence[str] = ()  # on the sources, printed whenever it is prepared or read

    def config_name(self) -> str:
        """The dataset's configuration in TFDS's sense: a folder below its name."""
        return f"{self.variant}-{self.fingerprint}"


def photo_features(labels: Sequence[str] | None = None) -> tfds.features.FeaturesDict:
    """The features `image`, `filename` and, if there are labels, `label`."""
    features: dict[str, Any] = {"image": tfds.features.Image(shape=(None, None, 3))}
    if labels is not None:
        names = [_EDGES.sub(_escaped, label) for label in labels]
        features["label"] = tfds.features.ClassLabel(names=names)
    features["filename"] = tfds.features.Text()
    return tfds.features.FeaturesDict(features)


def _escaped(spaces: re.Match[str]) -> str:
    return "".join(f"\\u{ord(space):04x}" for space in spaces[0])


def fingerprint(options: object, files: Iterable[tuple[str, Path]]) -> str:
    """Identifies a state of the sources; other files, sizes or times change it.

    Files and folders come with the name that counts; `options` is everything else that
    decides the dataset, its `repr` counts.

    Raises:
      OSError: if one of them does not exist.
    """
    digest = hashlib.sha256(repr(options).encode())
    names_and_paths = list(files)
    found = source_files.states([path for _, path in names_and_paths])
    for (name, _), state in zip(names_and_paths, found, strict=True):
        digest.update(repr((name, *state)).encode())
    return digest.hexdigest()[:12]
