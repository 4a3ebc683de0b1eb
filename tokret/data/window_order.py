"""The order of training by windows: each process reads few shards at a time.

In each epoch the shards are permuted, and the records in each of them. Of this sequence
each process gets a run, all of the same length; the rest, less than a batch, is not
used in this epoch. A run is read window by window: as many of its shards as fit into a
number of bytes, the records of which are shuffled together.
"""

import functools
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokret.shapes import Int


class Shards(NamedTuple):
    """The shards of a split, in its order: numbers of records, and sizes in bytes."""

    lengths: tuple[int, ...]
    nbytes: tuple[int, ...]

    def rows(self, row: int) -> range:
        """Returns the rows of the shard that has a row."""
        ends = np.cumsum(self.lengths)
        shard = int(np.searchsorted(ends, row, "right"))
        return range(int(ends[shard]) - self.lengths[shard], int(ends[shard]))


class Window(NamedTuple):
    """Some shards of one process's run, and their rows in the order of reading."""

    epoch: int
    process: int
    number: int  # in the run
    first: int  # the place of its first record in the run
    shards: tuple[int, ...]
    rows: Int[np.ndarray, " r"]


class _Part(NamedTuple):
    """The records of a shard, in their permuted order, that a run has."""

    shard: int
    start: int
    stop: int


class WindowOrder(Sequence[int]):
    """The row of each place in the global batches, epoch after epoch, without end.

    Place b * batch_size + i is image i of batch b, in which processes have equal parts,
    one behind the other. Nothing but the arguments decides the order.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        batch_size: int,
        processes: int,
        seed: int,
        window_bytes: int,
    ) -> None:
        """Orders a split; a window has one shard at least, however large it is."""
        self._shards = shards
        self._local = batch_size // processes
        self._processes = processes
        self._seed = seed
        self._window_bytes = window_bytes
        self._steps = sum(shards.lengths) // batch_size  # of an epoch
        self._ends = np.cumsum(shards.lengths)
        self._lock = threading.Lock()
        self._layout = functools.lru_cache(4)(self._make_layout)
        self._window = functools.lru_cache(4)(self._make_window)

    def __len__(self) -> int:
        """A number that no run reaches."""
        return sys.maxsize

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        """Returns the row of a place."""
        window, offset = self.find(place)
        return int(window.rows[offset])

    def find(self, place: int) -> tuple[Window, int]:
        """Returns the window that has a place, and the place in it."""
        step, i = divmod(place, self._local * self._processes)
        epoch, step = divmod(step, self._steps)
        process, i = divmod(i, self._local)
        at = step * self._local + i
        with self._lock:
            starts, _ = self._layout(epoch, process)
            number = int(np.searchsorted(starts, at, "right")) - 1
            window = self._window(epoch, process, number)
        return window, at - window.first

    def after(self, window: Window) -> Window:
        """Returns the window that a process reads next."""
        epoch, process, number = window.epoch, window.process, window.number + 1
        with self._lock:
            if number == len(self._layout(epoch, process)[0]):
                epoch, number = epoch + 1, 0
            return self._window(epoch, process, number)

    def _permutation(self, count: int, *key: int) -> Int[np.ndarray, " n"]:
        """A permutation that numpy guarantees to stay the same in later versions."""
        words = np.random.SeedSequence(self._seed, spawn_key=key)
        return np.argsort(np.random.PCG64(words).random_raw(count), kind="stable")

    def _make_layout(
        self, epoch: int, process: int
    ) -> tuple[Int[np.ndarray, " w"], list[list[_Part]]]:
        """The first place of each window of a run, and the parts of each."""
        run = self._steps * self._local
        windows: list[list[_Part]] = []
        starts, nbytes, done = [], 0, 0
        for part in self._parts(epoch, process * run, (process + 1) * run):
            size = self._shards.nbytes[part.shard]
            if not windows or nbytes + size > self._window_bytes:
                windows.append([])
                starts.append(done)
                nbytes = 0
            windows[-1].append(part)
            nbytes += size
            done += part.stop - part.start
        return np.array(starts), windows

    def _parts(self, epoch: int, start: int, stop: int) -> list[_Part]:
        """The records between two places of the permuted shards of an epoch."""
        parts, end = [], 0
        for shard in self._permutation(len(self._shards.lengths), 0, epoch).tolist():
            first, end = end, end + self._shards.lengths[shard]
            if first < stop and end > start:
                part = _Part(shard, max(start, first) - first, min(stop, end) - first)
                parts.append(part)
        return parts

    def _make_window(self, epoch: int, process: int, number: int) -> Window:
        starts, windows = self._layout(epoch, process)
        rows = np.concatenate([self._rows(epoch, *part) for part in windows[number]])
        rows = rows[self._permutation(len(rows), 2, epoch, process, number)]
        shards = tuple(part.shard for part in windows[number])
        return Window(epoch, process, number, int(starts[number]), shards, rows)

    def _rows(
        self, epoch: int, shard: int, start: int, stop: int
    ) -> Int[np.ndarray, " r"]:
        length = self._shards.lengths[shard]
        # Permuted, too: else the last records would be those that are not used.
        rows = self._permutation(length, 1, epoch, shard)[start:stop]
        return rows + (int(self._ends[shard]) - length)
