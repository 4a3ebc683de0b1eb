"""Datasets by name: one visible table."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tokret.arguments import choose
from tokret.configuration import call
from tokret.data.google_landmarks import builder as landmarks_v2
from tokret.data.image_folder import builder as image_folder
from tokret.data.revisited import builder as revisited
from tokret.data.revisited import distractors
from tokret.data.streams import Record
from tokret.data.synthetic_landmarks import builder as synthetic_landmarks
from tokret.errors import UserError

DATASETS: dict[str, Callable[..., tfds.core.DatasetBuilder]] = {
    "gldv2": landmarks_v2.prepare,
    "image_folder": image_folder.prepare,
    "oxford5k": revisited.oxford5k,
    "paris6k": revisited.paris6k,
    "revisitop1m": distractors.prepare,
    "roxford5k": revisited.roxford5k,
    "rparis6k": revisited.rparis6k,
    "synthetic_landmarks": synthetic_landmarks.prepare,
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset.

    Attributes:
      name: what results call it.
      builder: the TFDS builder it is read from.
    """

    name: str
    builder: tfds.core.DatasetBuilder

    @property
    def classes(self) -> int:
        """The number of classes of the training photos.

        Raises:
          UserError: if the photos have no labels.
        """
        return int(self._label().num_classes)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the labels, in their order.

        Raises:
          UserError: if the photos have no labels.
        """
        return list(self._label().names)

    @property
    def ground_truth(self) -> Mapping[str, Any] | None:
        """The retrieval benchmark in the Revisited form, None if it has none."""
        return self._metadata().get("ground_truth")

    @property
    def leave_one_out(self) -> Mapping[str, Any] | None:
        """What split `benchmark`, to be found among each other, holds; None without.

        `labels` and `boxes`, None or x0, y0, x1, y1, of its photos in order, and
        `classes`, the labels' names.
        """
        return self._metadata().get("leave_one_out")

    def _metadata(self) -> dict[str, Any]:
        metadata = self.builder.info.metadata
        # Not `get`: read lazily from disk, they are not there before they are asked
        # for all together.
        return {} if metadata is None else dict(metadata.items())

    def has(self, split: str) -> bool:
        """Says whether there is a split of this name."""
        return split in self.builder.info.splits

    def identity(self) -> dict[str, Any]:
        """What a run must find again when it goes on: classes and splits, in JSON.

        Raises:
          UserError: if the photos have no labels.
        """
        labels = self._label().names
        digest = hashlib.sha256("\n".join(labels).encode("utf-8", "replace"))
        counts = {
            name: split.num_examples for name, split in self.builder.info.splits.items()
        }
        return {
            "labels": digest.hexdigest()[:16],
            "classes": self.classes,
            **counts,
        }

    def _label(self) -> tfds.features.ClassLabel:
        features = self.builder.info.features
        if "label" not in features:
            raise UserError(
                f"the photos of dataset {self.name} have no labels: it is there to "
                "evaluate on, and nothing can be trained on it"
            )
        return features["label"]

    def records(self, split: str) -> Sequence[Record]:
        """Returns a split's records, images still encoded, in the dataset's order.

        Raises:
          UserError: if there is no such split.
        """
        if not self.has(split):
            raise UserError(
                f"dataset {self.name} has no split {split!r}; it has "
                f"{', '.join(self.builder.info.splits)}"
            )
        source = self.builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        assert isinstance(source, Sequence)
        return source


def prepare(data_dir: str, *, name: str, **options: Any) -> Dataset:
    """Prepares a dataset, if it is not there yet.

    Args:
      data_dir: where prepared datasets lie.
      name: a name in `DATASETS`.
      **options: the dataset's own fields.

    Raises:
      UserError: if the name or a field is unknown, or the data is not there.
    """
    make = choose(DATASETS, name, "config.data.name")
    folder = Path(data_dir).expanduser()
    builder = call(make, "data", options, data_dir=folder)
    return Dataset(name, builder)
