"""Grain streams: records -> batches, decided by the seed and the step alone.

A training stream starts at any step without running through those before it, and gives
the same global batches whatever the number of threads and processes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from tokret.data.augmentation import Augmentation, centre_crop
from tokret.data.decoding import decode_fast
from tokret.errors import UserError

Record = Mapping[str, Any]  # image: encoded bytes, label: int, filename: bytes
Batch = dict[str, np.ndarray]


def decoded(record: Record) -> np.ndarray:
    """Decodes a record's image; errors call it by its file name."""
    return decode_fast(record["image"], record["filename"].decode())


class _AugmentRecord(grain.transforms.RandomMap):
    """Decodes and augments; Grain's generator depends on seed and position alone."""

    def __init__(self, augmentation: Augmentation):
        self._augmentation = augmentation

    def random_map(self, element: Record, rng: np.random.Generator) -> Batch:
        image = self._augmentation(decoded(element), rng)
        return {"images": image, "labels": np.array(element["label"], np.int32)}


def training_batches(
    records: Sequence[Record],
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    process: tuple[int, int] = (0, 1),
    threads: int = 16,
    prefetch: int = 64,
) -> Iterator[Batch]:
    """Yields shuffled, augmented batches without end.

    Args:
      records: all records of the training split.
      augmentation: makes one view of a photo.
      batch_size: images in the global batch.
      seed: decides order and augmentation.
      first_step: the step whose batch comes first.
      process: this process's index and the number of processes; each gets its slice of
        every global batch.
      threads: threads that decode and augment.
      prefetch: records that are ready ahead.

    Raises:
      UserError: if the batch is larger than the dataset or does not divide among the
        processes.
    """
    index, count = process
    if batch_size % count:
        raise UserError(
            f"batch_size {batch_size} does not divide among {count} processes"
        )
    if batch_size > len(records):
        raise UserError(
            f"batch_size {batch_size} is larger than the {len(records)} training "
            "photos; lower batch_size"
        )
    dataset = (
        grain.MapDataset.source(records)
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(_AugmentRecord(augmentation))[index::count]
        .batch(batch_size // count, drop_remainder=True)[first_step:]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset.to_iter_dataset(options))


def names_of_step(
    records: Sequence[Record], *, batch_size: int, seed: int, step: int
) -> list[str]:
    """Lists the file names of the photos that a step of `training_batches` saw.

    Args:
      records: all records of the training split.
      batch_size: images in the global batch.
      seed: the stream's.
      step: the step, from 1.
    """
    order = grain.MapDataset.range(len(records)).seed(seed).shuffle().repeat(None)
    rows = range((step - 1) * batch_size, step * batch_size)
    return [records[int(order[row])]["filename"].decode() for row in rows]


def validation_batches(
    records: Sequence[Record],
    *,
    size: int,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
    threads: int = 16,
) -> Iterable[Batch]:
    """Yields every record once, centre-cropped; the last batch is filled up.

    Args:
      records: all records of the validation split.
      size: side of the images, in pixels.
      batch_size: images in the global batch.
      process: this process's index and the number of processes.
      threads: threads that decode.

    Returns:
      Batches with images, labels and weights: 1 for a photo, 0 for filling.
    """
    index, count = process
    part = batch_size // count

    def view(record: Record) -> Batch:
        return {
            "images": centre_crop(decoded(record), size),
            "labels": np.array(record["label"], np.int32),
            "weights": np.array(1, np.float32),
        }

    whole = -(-len(records) // batch_size) * part  # records a process reads or fills
    mine = grain.MapDataset.source(records)[index::count].map(view).batch(part)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=part)
    done = 0
    for batch in mine.to_iter_dataset(options):
        done += part
        yield _filled(batch, part)
    for _ in range(done, whole, part):
        yield _filled_from_nothing(size, part)


def _filled(batch: Batch, rows: int) -> Batch:
    """Fills a short batch with zeros up to `rows`."""
    missing = rows - len(batch["labels"])
    return {
        name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for name, array in batch.items()
    }


def _filled_from_nothing(size: int, rows: int) -> Batch:
    return {
        "images": np.zeros((rows, size, size, 3), np.uint8),
        "labels": np.zeros(rows, np.int32),
        "weights": np.zeros(rows, np.float32),
    }
