"""The finished batches of a store in object storage, where no file can be changed.

Its local copy is written as any store. Every half minute the batches since then become
an object `parts/ID`: their lines of the journal, an empty line, and their descriptors.
From these a later process, on any host, makes the local copy again.
"""

import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tokret.io.regular_files import read_file
from tokret.io.remote.fetching import TRANSFERS, drop, fetch
from tokret.io.remote.objects import list_names, remove, write_object
from tokret.io.remote.urls import url_of
from tokret.retrieval.store.journal import read_batches
from tokret.retrieval.store.reading import DESCRIPTORS, JOURNAL

PARTS = "parts"
PERIOD = 30.0  # seconds of extraction that a kill loses
MAX_BYTES = 2**28  # of descriptors that wait to be uploaded
MAX_PART = 2**31  # bytes of an object


def restore_parts(folder: Path, count: int) -> None:
    """Makes the descriptors and the journal of a store's local copy from its parts.

    What was not uploaded is gone; parts that are damaged are skipped.

    Args:
      folder: the store's.
      count: N, its rows.
    """
    for name in (DESCRIPTORS, JOURNAL):
        (folder / name).unlink(missing_ok=True)
    array, known = None, b""
    for path in sorted(fetch(folder / PARTS).glob("*")):
        lines, _, data = read_file(path, MAX_PART).partition(b"\n\n")
        batches, length = read_batches(lines + b"\n")
        rows = [row for batch in batches for row in batch.rows]
        whole = length == len(lines) + 1 and rows and max(rows) < count
        if not whole or not data or len(data) % (4 * len(rows)):
            continue
        descriptors = np.frombuffer(data, np.float32).reshape(len(rows), -1)
        if array is None:
            shape = (count, descriptors.shape[1])
            array = np.lib.format.open_memmap(
                folder / DESCRIPTORS, "w+", np.float32, shape
            )
        if descriptors.shape[1] == array.shape[1]:
            array[rows] = descriptors
            known += lines + b"\n"
    if array is not None:
        array.flush()
        (folder / JOURNAL).write_bytes(known)
    drop(folder / PARTS)


class PartUploads:
    """Uploads the batches of a store in parts, one after the other in a thread."""

    def __init__(self, folder: Path) -> None:
        """Starts with none."""
        self._url = f"{url_of(folder)}/{PARTS}"
        self._lines: list[bytes] = []
        self._rows: list[bytes] = []
        self._due = time.monotonic() + PERIOD
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def add(self, line: bytes, rows: Sequence[bytes]) -> None:
        """Adds a batch: its line of the journal, and its rows.

        Raises:
          StorageError, UnavailableError: as `objects` does; of earlier batches too.
        """
        self._lines.append(line)
        self._rows += rows
        size = len(self._rows) * len(self._rows[0]) if self._rows else 0
        is_due = time.monotonic() >= self._due
        # While the storage is slow, extraction continues until too much waits.
        is_idle = self._running is None or self._running.done()
        if size > MAX_BYTES or (is_due and is_idle):
            self._upload()

    def _upload(self) -> None:
        self._wait()
        if not self._lines:
            return
        content = b"".join([*self._lines, b"\n", *self._rows])
        url = f"{self._url}/{secrets.token_hex(8)}"
        self._running = self._pool.submit(write_object, url, content)
        self._lines, self._rows = [], []
        self._due = time.monotonic() + PERIOD

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()

    def close(self) -> None:
        """Uploads what is left; errors are those of `add`."""
        try:
            self._upload()
            self._wait()
        finally:
            self._pool.shutdown()

    def remove(self) -> None:
        """Removes all parts, once the store is complete."""
        self._lines, self._rows = [], []
        self._wait()
        with ThreadPoolExecutor(TRANSFERS) as pool:
            names = list_names(self._url)
            list(pool.map(lambda name: remove(f"{self._url}/{name}"), names))
