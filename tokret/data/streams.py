"""Grain streams: records -> batches, decided by the seed and the step alone.

A training stream starts at any step without running through those before it, and gives
the same global batches whatever the number of threads and processes. A photo that went
bad after it was prepared ends no run: in training another stands in for it, chosen by
the seed and the position, and in validation its weight is zero.
"""

from collections.abc import Callable, Iterable, Iterator

import grain
import numpy as np

from tokret.data.augmentation import Augmentation, centre_crop
from tokret.data.decoding import decode_fast
from tokret.data.records import BadRecordError, Records, read_record
from tokret.errors import UserError

Batch = dict[str, np.ndarray]

GOOD = -1  # in a batch's `bad`, which else holds the position of a record that is bad
ATTEMPTS = 64  # photos tried for one place in a batch


def _viewed(
    records: Records,
    place: int,
    view: Callable[[bytes, str], np.ndarray],
) -> Batch:
    """Reads a record, and decodes what a view needs of it.

    Raises:
      BadRecordError: if it cannot be.
    """
    record = read_record(records, place)
    try:
        image = view(record["image"], record["filename"].decode())
    except UserError as error:
        raise BadRecordError(str(error)) from error
    label = np.array(record["label"], np.int32)
    return {"images": image, "labels": label, "bad": np.array(GOOD, np.int64)}


def bad_record_reason(records: Records, place: int) -> str:
    """Returns which record is bad, and why, in one line."""
    try:
        _viewed(records, place, decode_fast)
    except BadRecordError as error:
        return str(error)
    return f"record {place} could be read at the second try"


class _View(grain.transforms.RandomMap):
    """Decodes and augments; Grain's generator depends on seed and position alone."""

    def __init__(self, records: Records, augmentation: Augmentation):
        self._records = records
        self._augmentation = augmentation

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        bad, place = GOOD, int(element)
        for _ in range(ATTEMPTS):
            try:
                batch = _viewed(
                    self._records,
                    place,
                    lambda encoded, name: self._augmentation.view(encoded, name, rng),
                )
            except BadRecordError:
                bad = place if bad == GOOD else bad
                place = int(rng.integers(len(self._records)))
            else:
                return batch | {"bad": np.array(bad, np.int64)}
        raise UserError(
            f"{ATTEMPTS} photos in a row cannot be decoded, the first is: "
            f"{bad_record_reason(self._records, bad)}; prepare the dataset again"
        )


def training_batches(
    records: Records,
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

    Returns:
      Batches with images, labels and bad: the position of a record that could not be
      decoded and that another stands in for, GOOD where there is none.

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
        grain.MapDataset.range(len(records))
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(_View(records, augmentation))
        # Neighbours, as their devices are: the rows of a global batch, and with them
        # dropout, do not depend on the number of processes.
        .batch(batch_size // count, drop_remainder=True)[index::count][first_step:]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset.to_iter_dataset(options))


def names_of_step(
    records: Records, *, batch_size: int, seed: int, step: int
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
    records: Records,
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
      Batches with images, labels, weights, 1 for a photo and 0 for filling or a photo
      that cannot be decoded, and bad, as `training_batches`.
    """
    index, count = process
    part = batch_size // count

    def view(place: int) -> Batch:
        try:
            batch = _viewed(
                records,
                place,
                lambda encoded, name: centre_crop(decode_fast(encoded, name), size),
            )
        except BadRecordError:
            (batch,) = _rows(_filled_from_nothing(size, 1))
            return batch | {"bad": np.array(place, np.int64)}
        return batch | {"weights": np.array(1, np.float32)}

    whole = -(-len(records) // batch_size) * part  # records a process reads or fills
    mine = grain.MapDataset.range(len(records))[index::count].map(view).batch(part)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=part)
    done = 0
    for batch in mine.to_iter_dataset(options):
        done += part
        yield _filled(batch, size, part)
    for _ in range(done, whole, part):
        yield _filled_from_nothing(size, part)


def _rows(batch: Batch) -> list[Batch]:
    """A batch's examples, one by one."""
    return [
        {name: array[i] for name, array in batch.items()}
        for i in range(len(batch["labels"]))
    ]


def _filled(batch: Batch, size: int, rows: int) -> Batch:
    """Fills a short batch with nothing up to `rows`."""
    filling = _filled_from_nothing(size, rows - len(batch["labels"]))
    return {name: np.concatenate([batch[name], filling[name]]) for name in batch}


def _filled_from_nothing(size: int, rows: int) -> Batch:
    return {
        "images": np.zeros((rows, size, size, 3), np.uint8),
        "labels": np.zeros(rows, np.int32),
        "weights": np.zeros(rows, np.float32),
        "bad": np.full(rows, GOOD, np.int64),
    }
