"""How long training waits for photos from a bucket, in turns with the local disk."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokret.arguments import within
from tokret.benchmark.noise_photos import noise_photo
from tokret.benchmark.timing import check_turns, environment, format_spread, spread
from tokret.data import datasets
from tokret.data.augmentation import Augmentation
from tokret.data.datasets import Dataset
from tokret.data.streams import Batch, training_batches
from tokret.io.remote.urls import check_url

PACKAGES = ("grain", "array-record", "fsspec", "gcsfs", "s3fs")
BATCH, SIZE, THREADS = 64, 64, 2
KINDS = 16  # different photos
SMALL = (192, 256)  # height and width in pixels: decoding must not be what limits
DISK, BUCKET, WINDOWS = "disk", "bucket", "bucket, windows"
WINDOW = 2  # shards; three times as many are on the local disk


def run(url: str, photos: int, rate: float, turns: int) -> dict[str, Any]:
    """Trains one epoch without a model, as fast as a model would.

    Args:
      url: a folder in a bucket; a dataset is prepared into it.
      photos: of the dataset.
      rate: images/s that a model would train on.
      turns: how often each case is timed, without local copies at its start.

    Returns:
      "first" (seconds until the first batch) and "waiting" (the fraction of the time
      after it) of each turn, by case, and "shards" and "mib" of the dataset.

    Raises:
      UserError: for a URL that cannot be used, fewer photos than a batch, or no turns.
    """
    check_url(url, "url")
    within("photos", photos, 2 * BATCH)
    check_turns(turns)
    first: dict[str, list[float]] = {}
    waiting: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        _write_photos(root, photos)
        fields: dict[str, Any] = {"name": "image_folder", "root": str(root)}
        fields["validation_fraction"] = 0.0
        local = datasets.prepare(f"{folder}/data", **fields)
        datasets.prepare(url, **fields)
        table = local.shards("train")
        window = WINDOW * max(table.nbytes)
        cases: dict[str, Callable[[], Iterator[Batch]]] = {
            DISK: lambda: _batches(local, None),
            BUCKET: lambda: _batches(_fetched(url, fields, 64.0), None),
            WINDOWS: lambda: _batches(
                _fetched(url, fields, 3 * window / 2**30), (table, window)
            ),
        }
        for turn in range(turns):
            for name in sorted(cases, reverse=turn % 2 == 1):
                measured = _time(cases[name], photos // BATCH, rate)
                first.setdefault(name, []).append(measured[0])
                waiting.setdefault(name, []).append(measured[1])
    return {
        "benchmark": "remote_input",
        "environment": environment(*PACKAGES),
        **{"photos": photos, "rate": rate, "first": first, "waiting": waiting},
        **{"shards": len(table.nbytes), "mib": sum(table.nbytes) / 2**20},
    }


def _write_photos(root: Path, count: int) -> None:
    kinds = [noise_photo(seed, *SMALL) for seed in range(KINDS)]
    for label in range(2):
        (root / str(label)).mkdir(parents=True)
    for i in range(count):
        (root / str(i % 2) / f"{i}.jpg").write_bytes(kinds[i % KINDS])


def _fetched(url: str, fields: dict[str, Any], cache_gib: float) -> Dataset:
    """Opens the dataset in the bucket, of which no shard is on the local disk."""
    dataset = datasets.prepare(url, cache_gib=cache_gib, **fields)
    for path in dataset.folder.glob("*.array_record*"):
        path.unlink()
    return dataset


def _batches(dataset: Dataset, windows: Any) -> Iterator[Batch]:
    return training_batches(
        dataset.records("train"),
        Augmentation(size=SIZE),
        **{"batch_size": BATCH, "seed": 0, "threads": THREADS, "windows": windows},
    )


def _time(
    make: Callable[[], Iterator[Batch]], steps: int, rate: float
) -> tuple[float, float]:
    """Returns the seconds until the first batch, and the fraction of waiting after."""
    start = time.monotonic()
    batches = make()
    next(batches)
    since = time.monotonic()
    waited = 0.0
    for _ in range(steps - 1):
        time.sleep(BATCH / rate)  # a step of a model
        ready = time.monotonic()
        next(batches)
        waited += time.monotonic() - ready
    return since - start, waited / (time.monotonic() - since)


def report(result: dict[str, Any]) -> str:
    """Formats what `run` returns."""
    where = result["environment"]
    lines = [
        f"{where['cores']} cores, {where['processor']}",
        f"{result['photos']} photos in {result['shards']} shards, "
        f"{result['mib']:.0f} MiB, at {result['rate']:g} images/s: median (lowest to "
        "highest)",
        f"{'':18}{'s to the first batch':>24}{'% waiting for input':>28}",
    ]
    for name in (DISK, BUCKET, WINDOWS):
        first = format_spread(spread(result["first"][name]), 2)
        waiting = format_spread(spread(result["waiting"][name]), 1, 100.0)
        lines.append(f"{name:18}{first:>24}{waiting:>28}")
    return "\n".join(lines)
