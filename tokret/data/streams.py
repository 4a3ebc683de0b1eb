"""Grain streams: records -> batches, decided by the seed and the step alone.

A training stream starts at any step without reading earlier ones, and gives the same
global batches whatever the number of threads and, unless photos are shuffled in
windows, of processes. A photo that went bad after it was prepared does not end a run:
in training it is replaced by another, chosen by the seed and the position, and in
validation its weight is zero.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from tokret.data.augmentation import Augmentation, centre_crop
from tokret.data.decoding import decode_fast
from tokret.data.records import BadRecordError, Records, read_record
from tokret.data.remote_records import RemoteRecords
from tokret.data.window_order import Shards, Window, WindowOrder
from tokret.errors import UserError

Batch = dict[str, np.ndarray]

GOOD = -1  # in a batch's `bad`, which otherwise is the row of the bad record
ATTEMPTS = 64  # photos tried for one image of a batch


def _view(
    records: Records, row: int, view: Callable[[bytes, str], np.ndarray]
) -> Batch:
    """Reads a record and decodes its view.

    Raises:
      BadRecordError: if it cannot be.
    """
    record = read_record(records, row)
    try:
        image = view(record["image"], record["filename"].decode())
    except UserError as error:
        raise BadRecordError(str(error)) from error
    label = np.array(record["label"], np.int32)
    return {"images": image, "labels": label, "bad": np.array(GOOD, np.int64)}


def bad_record_reason(records: Records, row: int) -> str:
    """Returns which record is bad, and why, in one line."""
    try:
        _view(records, row, decode_fast)
    except BadRecordError as error:
        return str(error)
    return f"record {row} could be read at the second try"


class _Augment(grain.transforms.RandomMap):
    """Decodes and augments; Grain's generator depends on seed and position alone."""

    def __init__(
        self,
        records: Records,
        augmentation: Augmentation,
        others: Callable[[int], range],
    ):
        """Replaces a bad record by one of those that `others` returns for its row."""
        self._records = records
        self._augmentation = augmentation
        self._others = others

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        bad, row = GOOD, int(element)
        for _ in range(ATTEMPTS):
            try:
                batch = _view(
                    self._records,
                    row,
                    lambda encoded, name: self._augmentation.view(encoded, name, rng),
                )
            except BadRecordError:
                bad = row if bad == GOOD else bad
                others = self._others(bad)
                row = others[int(rng.integers(len(others)))]
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
    windows: tuple[Shards, int] | None = None,
) -> Iterator[Batch]:
    """Returns shuffled, augmented batches without end.

    Args:
      records: all records of the training split.
      augmentation: makes one view of a photo.
      batch_size: images in the global batch.
      seed: decides order and augmentation.
      first_step: the step of the first batch.
      process: this process's index and the number of processes; each gets its slice of
        every global batch.
      threads: threads that decode and augment.
      prefetch: batches that are ready ahead.
      windows: the shards of the split and the bytes of a window, for a `WindowOrder`;
        None shuffles all records of each epoch.

    Returns:
      Batches with images, labels and bad: the row of a record that could not be decoded
      and was replaced, GOOD for others.

    Raises:
      UserError: if the batch is larger than the dataset, or the number of processes
        does not divide it.
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
    rows = _rows(records, batch_size, seed, count, windows)
    if isinstance(records, RemoteRecords):
        records.in_any_order()  # what follows a record in its split is read later
    others: Callable[[int], range] = lambda row: range(len(records))  # noqa: E731
    if windows is not None:
        others = windows[0].rows  # which are on the local disk
        if isinstance(records, RemoteRecords):
            rows = _Followed(rows, records, lag=threads * (batch_size // count))
        rows = grain.MapDataset.source(rows).seed(seed)
    elif isinstance(records, RemoteRecords):
        records.files.keep(records.names)
    dataset = (
        rows.random_map(_Augment(records, augmentation, others))
        # Adjacent rows for adjacent devices: the rows of a global batch, and with them
        # dropout, do not depend on the number of processes.
        .batch(batch_size // count, drop_remainder=True)[index::count][first_step:]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset.to_iter_dataset(options))


def _rows(
    records: Records,
    batch_size: int,
    seed: int,
    processes: int,
    windows: tuple[Shards, int] | None,
) -> Any:
    """The row of each place in the global batches; a Grain dataset or `WindowOrder`."""
    if windows is None:
        return grain.MapDataset.range(len(records)).seed(seed).shuffle().repeat(None)
    shards, nbytes = windows
    sizes = {"batch_size": batch_size, "processes": processes}
    return WindowOrder(shards, **sizes, seed=seed, window_bytes=nbytes)


class _Followed(Sequence[int]):
    """An order by windows whose shards are fetched: the window's, then the next one's.

    Records are read by several threads, so the window before is kept until `lag`
    records of the next one were read.
    """

    def __init__(self, order: WindowOrder, records: RemoteRecords, lag: int):
        self._order = order
        self._records = records
        self._lag = lag
        self._followed: Window | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]
        window, offset = self._order.find(place)
        lag = min(self._lag, len(window.rows) // 2)
        if self._is_ahead(window) and (self._followed is None or offset >= lag):
            self._followed = window
            shards = (*window.shards, *self._order.after(window).shards)
            self._records.files.keep([self._records.names[shard] for shard in shards])
        return int(window.rows[offset])

    def _is_ahead(self, window: Window) -> bool:
        followed = self._followed
        return followed is None or window[:3] > followed[:3]


def names_of_step(
    records: Records,
    *,
    batch_size: int,
    seed: int,
    step: int,
    processes: int = 1,
    windows: tuple[Shards, int] | None = None,
) -> list[str]:
    """Lists the file names of the photos that a step of `training_batches` saw.

    Those whose shards other processes read from a bucket are named by their row. The
    other arguments are the stream's; steps are from 1.
    """
    rows = _rows(records, batch_size, seed, processes, windows)
    return [
        _name(records, int(rows[place]))
        for place in range((step - 1) * batch_size, step * batch_size)
    ]


def _name(records: Records, row: int) -> str:
    if isinstance(records, RemoteRecords) and not records.is_here(row):
        return f"record {row}"
    return str(records[row]["filename"].decode())


def validation_batches(
    records: Records,
    *,
    size: int,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
    threads: int = 16,
    in_runs: bool = False,
) -> Iterable[Batch]:
    """Returns every record once, centre-cropped; the last batch is padded.

    Args:
      records: all records of the validation split.
      size: side of the images, in pixels.
      batch_size: images in the global batch.
      process: this process's index and the number of processes.
      threads: threads that decode.
      in_runs: whether each process reads records that follow one another, of few
        shards; else they are dealt to the processes in turn.

    Returns:
      Batches with images, labels, weights, 1 for a photo and 0 for padding or a photo
      that cannot be decoded, and bad, as in `training_batches`.
    """
    index, count = process
    padded = -(-len(records) // batch_size) * batch_size

    def view(row: int) -> Batch:
        bad = GOOD
        if row < len(records):
            try:
                batch = _view(
                    records,
                    row,
                    lambda encoded, name: centre_crop(decode_fast(encoded, name), size),
                )
                return batch | {"weights": np.array(1, np.float32)}
            except BadRecordError:
                bad = row
        return {
            "images": np.zeros((size, size, 3), np.uint8),
            "labels": np.array(0, np.int32),
            "weights": np.array(0, np.float32),
            "bad": np.array(bad, np.int64),
        }

    local, run = batch_size // count, padded // count
    mine = (
        slice(index * run, (index + 1) * run) if in_runs else slice(index, None, count)
    )
    batches = grain.MapDataset.range(padded)[mine].map(view).batch(local)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=local)
    return iter(batches.to_iter_dataset(options))
