"""Records of a split whose shards are in a bucket."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tokret.data.remote_shards import RemoteShards

AHEAD = 2  # shards that are fetched before they are read in order


class RemoteRecords(Sequence[Mapping[str, Any]]):
    """A split's records, images still encoded; each is read from its shard."""

    def __init__(
        self, files: RemoteShards, builder: tfds.core.DatasetBuilder, split: str
    ) -> None:
        """Fetches nothing yet; records are expected to be read in order."""
        info = builder.info.splits[split]
        self.files = files
        self.names = [Path(path).name for path in info.filepaths]
        self._ends = np.cumsum(info.shard_lengths)
        self._lengths = info.shard_lengths
        self._features = builder.info.features
        self._ahead = AHEAD

    def in_any_order(self) -> "RemoteRecords":
        """Returns itself; from now on no shard is fetched before it is read."""
        self._ahead = 0
        return self

    def __len__(self) -> int:
        """The number of records."""
        return int(self._ends[-1])

    def shard(self, row: int) -> int:
        """Returns the number of the shard that has a row."""
        return int(np.searchsorted(self._ends, row, "right"))

    def is_here(self, row: int) -> bool:
        """Whether a record can be read without the bucket."""
        return self.files.has(self.names[self.shard(row)])

    def __getitem__(self, row):  # type: ignore[no-untyped-def]
        """Reads a record.

        Raises:
          UserError, RuntimeError: as `RemoteShards.read`.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)}")
        shard = self.shard(row)
        if self._ahead:
            self.files.read_ahead(self.names[shard + 1 : shard + 1 + self._ahead])
        first = int(self._ends[shard]) - self._lengths[shard]
        record = self.files.read(self.names[shard], row - first)
        return self._features.deserialize_example_np(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )
