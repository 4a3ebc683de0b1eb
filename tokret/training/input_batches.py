"""Batches of photos on their devices, without those that cannot be decoded any more.

Grain and the image decoders take long to import, so only functions that read photos
import them.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from tokret.config.tree import Config
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.names import counted
from tokret.runtime import cluster
from tokret.training.sharding import to_devices

Batch = dict[str, np.ndarray]
Batches = Iterator[dict[str, jax.Array]]

MIN_SKIPPED = 3  # photos; fewer never stop a run, however short its epochs
NONE = -1  # stands for no record in a batch's "bad"


class SkippedPhotos:
    """Counts the photos that a stream skipped, over all processes."""

    def __init__(
        self, records: Any, *, max_fraction: float, print_line: Callable[[str], None]
    ):
        """Counts up to a fraction of a split's records that an epoch may skip."""
        self._records = records
        self._max = max(MIN_SKIPPED, int(max_fraction * len(records)))
        self._print_line = print_line
        self._in_epoch = 0
        self._unreported = 0
        self._first = NONE

    def count(self, batch: Batch) -> Batch:
        """Counts a batch's bad records; returns the arrays that the devices need.

        Raises:
          UserError: if this process alone skipped too many photos in this epoch.
        """
        bad = batch["bad"][batch["bad"] != NONE]
        if len(bad):
            self._first = int(bad[0]) if self._first == NONE else self._first
            self._unreported += len(bad)
            self._in_epoch += len(bad)
        self._check(self._in_epoch, self._first)
        return {name: array for name, array in batch.items() if name != "bad"}

    def report(self) -> int:
        """Returns how many were skipped since the last report; warns if any were.

        All processes call it together, and each returns the sum.

        Raises:
          UserError: if all together skipped too many photos in this epoch.
        """
        mine = (self._unreported, self._in_epoch, self._first)
        found = cluster.gather_ints(mine)
        count, in_epoch = (int(total) for total in found[:, :2].sum(axis=0))
        if count:
            first = int(next(index for index in found[:, 2] if index != NONE))
            self._check(in_epoch, first)
            self._print_line(
                f"warning: {counted(count, 'photo')} skipped, the first is: "
                f"{self._reason(first)}"
            )
        self._unreported, self._first = 0, NONE
        return count

    def new_epoch(self) -> None:
        """Starts to count an epoch's again."""
        self._in_epoch = 0

    def _check(self, in_epoch: int, first: int) -> None:
        if in_epoch > self._max:
            raise UserError(
                f"{in_epoch} photos of this epoch cannot be decoded, more than "
                f"max_skipped_fraction allows ({self._max}); the first is: "
                f"{self._reason(first)}; check the disk, or prepare the dataset again"
            )

    def _reason(self, index: int) -> str:
        from tokret.data.streams import bad_record_reason

        return bad_record_reason(self._records, index)


class PhotoInput(NamedTuple):
    """The input of a run; `print_line` prints warnings."""

    config: Config
    dataset: Dataset
    mesh: Mesh
    print_line: Callable[[str], None]

    def training(self, first_step: int) -> tuple[Batches, SkippedPhotos]:
        """Returns the batches after a step, on their devices, and their skipped photos.

        The stream depends on the seed and the step alone: none of it is saved.
        """
        from tokret.data.augmentation import Augmentation
        from tokret.data.streams import training_batches

        records, skipped, options = self._open("train")
        augmentation = Augmentation(**dataclasses.asdict(self.config.augmentation))
        seed, windows = self.config.seed, self._windows()
        batches = training_batches(
            records,
            augmentation,
            seed=seed,
            first_step=first_step,
            windows=windows,
            **options,
        )
        return prefetch_to_devices(map(skipped.count, batches), self.mesh), skipped

    def validation(self) -> tuple[Batches, SkippedPhotos]:
        """Returns all validation batches, and their skipped photos."""
        from tokret.data.streams import validation_batches

        records, skipped, options = self._open("validation")
        size = self.config.augmentation.size
        in_runs = self.config.shuffle.order == "windows"
        batches = validation_batches(records, size=size, in_runs=in_runs, **options)
        return (to_devices(skipped.count(b), self.mesh) for b in batches), skipped

    def file_names(self, step: int) -> list[str]:
        """Lists the file names of the photos in a step's batch, counted from 1."""
        from tokret.data.streams import names_of_step

        records, config = self.dataset.records("train"), self.config
        return names_of_step(
            records,
            batch_size=config.batch_size,
            seed=config.seed,
            step=step,
            processes=jax.process_count(),
            windows=self._windows(),
        )

    def _windows(self) -> tuple[Any, int] | None:
        """The shards and the bytes of a window, None for the global order."""
        shuffle = self.config.shuffle
        if shuffle.order == "global":
            return None
        return self.dataset.shards("train"), int(shuffle.window_gib * 2**30)

    def _open(self, split: str) -> tuple[Any, SkippedPhotos, dict[str, Any]]:
        records, run = self.dataset.records(split), self.config.run
        options = {
            "batch_size": self.config.batch_size,
            "process": (jax.process_index(), jax.process_count()),
            "threads": run.threads,
        }
        fraction = run.max_skipped_fraction
        skipped = SkippedPhotos(
            records, max_fraction=fraction, print_line=self.print_line
        )
        return records, skipped, options


def prefetch_to_devices(
    batches: Iterator[Batch], mesh: Mesh, depth: int = 2
) -> Batches:
    """Yields this process's slices of global batches on their devices.

    `depth` batches wait there, besides the one in use.
    """
    waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        waiting.append(to_devices(batch, mesh))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting
