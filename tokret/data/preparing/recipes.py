"""What a dataset is made of, before and after its sources are read."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds

from tokret.data.preparing.photos import Treatment
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import Item


@runtime_checkable
class Photos(Protocol):
    """An ordered list of photos that need not lie in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Sequence[Item]: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a dataset holds.

    Attributes:
      features: of every split; `image` and `filename` are among them.
      splits: by name, their photos in order.
      missing: photos that should be in them and were not found.
      metadata: from the positions, by split, of photos that were left out, the
        dataset's metadata.
      write_beside: writes further files into the dataset's folder.
      notes: what is odd about the sources, and no error.
    """

    features: tfds.features.FeaturesDict
    splits: Mapping[str, Photos]
    missing: Sequence[Problem] = ()
    metadata: Callable[[Mapping[str, set[int]]], dict[str, Any]] | None = None
    write_beside: Callable[[Path], None] | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A dataset before its sources are read.

    Attributes:
      name: of the dataset.
      variant: what of it, in a word that a folder's name can hold.
      fingerprint: of sources and options, from `fingerprint`.
      description: what it is, in words.
      treatment: what is done to each photo.
      plan: finds out what it holds; is given a folder for what it needs on the way.
    """

    name: str
    variant: str
    fingerprint: str
    description: str
    treatment: Treatment
    plan: Callable[[Path], Plan]

    def config(self) -> str:
        """The dataset's configuration in TFDS's sense: a folder below its name."""
        return f"{self.variant}-{self.fingerprint}"


def fingerprint(options: object, files: Iterable[tuple[str, Path]]) -> str:
    """Names a state of the sources: other files, sizes or times give another name.

    Args:
      options: what else decides the dataset; its `repr` counts.
      files: files or folders, each with the name that counts.

    Raises:
      OSError: if one of them is not there.
    """
    digest = hashlib.sha256(repr(options).encode())
    for name, path in files:
        info = path.stat()
        digest.update(repr((name, info.st_size, info.st_mtime_ns)).encode())
    return digest.hexdigest()[:12]
