"""Source files of a dataset: on the disk, or in a bucket, from which they are fetched.

All take paths; that of a local copy is of an object. What is large is fetched in parts,
an archive or the photos of a shard, each of which is dropped before the disk is full.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tokret.io.remote import objects
from tokret.io.remote.fetching import drop, require
from tokret.io.remote.objects import download, find_object
from tokret.io.remote.urls import url_of

MAX_BYTES = 32 * 2**30  # of files that are here at the same time, if it is not one task
THREADS = 16  # that fetch or look objects up

State = tuple[int, int | str]  # size in bytes, and what changes with the content


def is_file(path: Path) -> bool:
    """Whether there is a file or an object."""
    url = url_of(path)
    return path.is_file() if url is None else find_object(url) is not None


def list_names(folder: Path) -> list[str]:
    """Lists what is directly in a folder, of a bucket objects alone, by name."""
    url = url_of(folder)
    if url is None:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    return [name for name in objects.list_names(url) if not name.endswith("/")]


def states(paths: Sequence[Path]) -> list[State]:
    """Returns the states of files.

    Raises:
      OSError: if one does not exist.
    """
    if not any(map(url_of, paths)):
        return list(map(_state, paths))
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(_state, paths))


def _state(path: Path) -> State:
    url = url_of(path)
    if url is None:
        info = path.stat()
        return info.st_size, info.st_mtime_ns
    entry = find_object(url)
    if entry is None:
        raise FileNotFoundError(f"{url} does not exist")
    return entry.size, entry.version


@contextlib.contextmanager
def here(path: Path) -> Iterator[Path]:
    """Fetches a file that is in a bucket; it is dropped in the end."""
    try:
        yield require(path)
    finally:
        drop(path)


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
    """The files of photos: on the disk, or below a folder that a bucket lists."""

    listed: Mapping[Path, objects.Entry] = dataclasses.field(default_factory=dict)

    @classmethod
    def below(cls, folder: Path) -> "PhotoFiles":
        """Lists a folder in a bucket; one on the disk needs no list."""
        url = url_of(folder)
        found = objects.list_objects(url) if url else {}
        return cls({folder / name: entry for name, entry in found.items()})

    def __or__(self, other: "PhotoFiles") -> "PhotoFiles":
        """Returns those of both."""
        return PhotoFiles({**self.listed, **other.listed})

    def exist(self, path: Path) -> bool:
        """Whether there is a file, or a link, perhaps to none."""
        return path in self.listed or os.path.lexists(path)

    def state(self, path: Path) -> State | None:
        """Returns the state of a file; None if it does not exist."""
        if path in self.listed:
            return self.listed[path].size, self.listed[path].version
        try:
            info = path.stat()
        except OSError:  # missing, or a broken link: reported when it is read
            return None
        return info.st_size, info.st_mtime_ns

    def fetched(self) -> dict[str, int]:
        """Returns the sizes in bytes of those in a bucket, by their paths."""
        return {str(path): entry.size for path, entry in self.listed.items()}


class FetchedFiles:
    """Fetches the files of tasks before they are done, as many ahead as fit.

    A file is dropped once no later task needs it. Tasks are names.
    """

    def __init__(self, sizes: Mapping[str, int], needs: Mapping[str, set[str]]) -> None:
        """Takes the sizes of files, and the files of each task, by their paths."""
        self._sizes, self._needs = sizes, needs
        self._uses = collections.Counter(p for paths in needs.values() for p in paths)
        self._fetched: dict[str, Future[None]] = {}
        self._running = 0  # tasks
        self._changes = threading.Condition()
        self._stopped = False
        self._pool = ThreadPoolExecutor(THREADS)

    def before(self) -> Iterator[str]:
        """Yields all tasks, each when its files are here.

        They are in an order in which few files are here at a time.
        """
        tasks = sorted(self._needs, key=lambda task: min(self._needs[task], default=""))
        for number, task in enumerate(tasks):
            if self._needs[task]:
                self._wait_for(task, tasks[number + 1 :])
            if self._stopped:
                return
            yield task

    def _wait_for(self, task: str, later: Sequence[str]) -> None:
        with self._changes:
            while self._running and not self._fits(task) and not self._stopped:
                self._changes.wait()
            if self._stopped:
                return
            self._running += 1
            self._start(task)
            for other in itertools.takewhile(self._fits, later):
                self._start(other)
            waiting = [self._fetched[path] for path in self._needs[task]]
        for fetched in waiting:
            fetched.result()

    def _fits(self, task: str) -> bool:
        files = {*self._fetched, *self._needs[task]}
        return sum(self._sizes[path] for path in files) <= MAX_BYTES

    def _start(self, task: str) -> None:
        for path in sorted(self._needs[task] - self._fetched.keys()):
            url = str(url_of(Path(path)))
            self._fetched[path] = self._pool.submit(download, url, Path(path))

    def done(self, task: str) -> None:
        """Drops the files that only this task still needed."""
        self._uses.subtract(self._needs[task])
        with self._changes:
            for path in self._needs[task]:
                if not self._uses[path]:
                    del self._fetched[path]
                    Path(path).unlink(missing_ok=True)
            self._running -= 1
            self._changes.notify_all()

    def stop(self) -> None:
        """Ends `before`, whichever thread is in it."""
        with self._changes:
            self._stopped = True
            self._changes.notify_all()

    def close(self) -> None:
        """Ends the fetches, and drops all files."""
        self.stop()
        self._pool.shutdown(cancel_futures=True)
        for path in self._fetched:
            Path(path).unlink(missing_ok=True)
