"""Datasets by name: one visible table."""

import dataclasses
import functools
import hashlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokret.arguments import within
from tokret.config.parsing import parse_data
from tokret.config.tree import DatasetIdentity
from tokret.errors import UserError
from tokret.io.atomic_files import require_folder
from tokret.io.regular_files import parsing
from tokret.io.remote.urls import check_url, is_url, path_of, shown, url_of
from tokret.names import is_valid_name
from tokret.runtime.ending import keeps

if TYPE_CHECKING:
    from tokret.data.records import Records
    from tokret.data.remote_shards import RemoteShards
    from tokret.data.window_order import Shards

DATA_DIR = "~/.cache/tokret"  # of prepared datasets, where no other is named
CACHE_GIB = 64.0  # GiB of shards of a dataset in a bucket that are on the local disk
# By name, module:function; only the module of the chosen dataset is imported.
DATASETS = {
    "gldv2": "tokret.data.google_landmarks.builder:prepare",
    "image_folder": "tokret.data.image_folder.builder:prepare",
    "oxford5k": "tokret.data.revisited.builder:prepare",
    "paris6k": "tokret.data.revisited.builder:prepare",
    "revisitop1m": "tokret.data.revisited.distractors:prepare",
    "roxford5k": "tokret.data.revisited.builder:prepare",
    "rparis6k": "tokret.data.revisited.builder:prepare",
    "synthetic_landmarks": "tokret.data.synthetic_landmarks.builder:prepare",
}


def prepare_function(name: str) -> Callable[..., Any]:
    """Imports the function that prepares a dataset.

    Its arguments are the dataset's config, the folder of prepared datasets, and the
    number of workers (0: one per core); it returns the tfds.core.DatasetBuilder.
    """
    function: Callable[..., Any] = pkgutil.resolve_name(DATASETS[name])
    return function


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset, and the tfds.core.DatasetBuilder it is read from."""

    name: str
    builder: Any  # TFDS is imported by builders alone
    cache_gib: float = CACHE_GIB  # of a dataset in a bucket

    @property
    def folder(self) -> Path:
        """The folder of its files; those in a bucket have a local copy of it."""
        return Path(self.builder.data_path)

    @functools.cached_property
    def remote_shards(self) -> "RemoteShards | None":
        """The shards of a dataset in a bucket, of all splits together; else None."""
        if url_of(self.folder) is None:
            return None
        from tokret.data.preparing.tfds_layout import shard_digests
        from tokret.data.remote_shards import RemoteShards

        most = int(self.cache_gib * 2**30)
        return RemoteShards(self.folder, shard_digests(self.folder), most)

    def shards(self, split: str) -> "Shards":
        """Returns the lengths and sizes of a split's shards.

        Raises:
          UserError: if the digests of the files cannot be read.
        """
        from tokret.data.preparing.tfds_layout import shard_digests
        from tokret.data.window_order import Shards

        digests, info = shard_digests(self.folder), self.builder.info.splits[split]
        names = [Path(path).name for path in info.filepaths]
        sizes = tuple(digests[name].nbytes for name in names)
        return Shards(tuple(info.shard_lengths), sizes)

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
        """The retrieval benchmark in the Revisited format, None if there is none."""
        return self._metadata().get("ground_truth")

    @property
    def leave_one_out(self) -> Mapping[str, Any] | None:
        """The benchmark of split `benchmark`, None if there is none.

        `labels` and `boxes`, None or x0, y0, x1, y1, of its photos in order, and
        `classes`, the labels' names.
        """
        return self._metadata().get("leave_one_out")

    def _metadata(self) -> dict[str, Any]:
        metadata = self.builder.info.metadata
        # Not `get`: it is read lazily from disk, and `get` does not load it.
        return {} if metadata is None else dict(metadata.items())

    def has(self, split: str) -> bool:
        """Whether there is a split of this name."""
        return split in self.builder.info.splits

    def identity(self) -> DatasetIdentity:
        """Returns the classes and splits, which must be the same when a run resumes.

        Raises:
          UserError: if the photos have no labels.
        """
        labels = self._label().names
        digest = hashlib.sha256("\n".join(labels).encode("utf-8", "replace"))
        splits = self.builder.info.splits.items()
        return DatasetIdentity(
            labels=digest.hexdigest()[:16],
            classes=self.classes,
            photos={name: split.num_examples for name, split in splits},
        )

    def _label(self) -> Any:
        features = self.builder.info.features
        if "label" not in features:
            raise UserError(
                f"the photos of dataset {self.name} have no labels: it can only be "
                "evaluated on"
            )
        return features["label"]

    def records(self, split: str) -> "Records":
        """Returns a split's records, images still encoded, in the dataset's order.

        Those of a dataset in a bucket are `RemoteRecords`, whose shards are fetched as
        they are read.

        Raises:
          UserError: if there is no such split, or its files are damaged.
        """
        if not self.has(split):
            raise UserError(
                f"dataset {self.name} has no split {split!r}; it has "
                f"{', '.join(self.builder.info.splits)}"
            )
        if self.remote_shards is not None:
            from tokret.data.remote_records import RemoteRecords

            return RemoteRecords(self.remote_shards, self.builder, split)
        import tensorflow_datasets as tfds

        folder = str(self.builder.data_path)
        with parsing(folder, "remove this folder, and prepare the dataset again"):
            source = self.builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        assert isinstance(source, Sequence)
        return source


def prepare(
    data_dir: str, *, workers: int = 0, cache_gib: float = CACHE_GIB, **fields: Any
) -> Dataset:
    """Prepares a dataset, unless it was prepared before.

    Args:
      data_dir: the folder of prepared datasets, or its URL.
      workers: processes or threads; 0 for one per core. Changes no byte.
      cache_gib: GiB of shards of a dataset in a bucket that are on the local disk.
      **fields: `name`, in `DATASETS`, and further fields of the dataset's config.

    Raises:
      UserError: if a field is unknown or wrong, or the data is missing.
    """
    config = parse_data(fields)
    within("workers", workers, 0)
    if is_url(data_dir):
        check_url(data_dir, "data_dir")
    folder = path_of(data_dir)
    if not is_valid_name(str(folder)):  # for TFDS and array_record
        name = shown(folder)
        raise UserError(f"data_dir: {name} is not text in UTF-8; rename the folder")
    require_folder(folder, "data_dir")
    keeps("photos that are prepared are kept; the same command resumes")
    builder = prepare_function(config.name)(config, folder, workers)
    return Dataset(config.name, builder, cache_gib)
