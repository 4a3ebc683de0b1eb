"""Where a dataset is written to: a folder on the disk, or one in a bucket.

On a disk the folder gets its name at the end. A bucket cannot rename: shards are
uploaded to their final place, each is removed from the local disk then, and the
digests, without which nothing counts as a dataset, come last. The reports of finished
shards are uploaded to VERSION.partial/journal, so the preparation resumes on any host.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tokret.data.preparing.dataset_digests import FILE, read_digests
from tokret.errors import StoppedError
from tokret.io.remote.fetching import drop, fetch
from tokret.io.remote.leases import leased
from tokret.io.remote.objects import (
    find_object,
    list_names,
    list_objects,
    remove,
    upload,
)
from tokret.io.remote.urls import url_of, with_urls
from tokret.names import printable

THREADS = 4  # that upload shards
WAITING = 8  # shards that are on the local disk, besides one a worker

Task = TypeVar("Task")


def is_prepared(folder: Path) -> bool:
    """Whether a folder, NAME/CONFIG/VERSION, has a whole dataset."""
    url = url_of(folder)
    return folder.is_dir() if url is None else find_object(f"{url}/{FILE}") is not None


def list_configs(parent: Path) -> list[str]:
    """Lists the folders of a dataset's configurations in that of its name."""
    url = url_of(parent)
    if url is None:
        return sorted(folder.name for folder in parent.glob("*"))
    return [name[:-1] for name in list_names(url) if name.endswith("/")]


class Destination:
    """A folder NAME/CONFIG/VERSION on the disk, written as VERSION.partial/data."""

    def __init__(self, final: Path) -> None:
        """Writes nothing yet."""
        self.final = final
        self.partial = final.with_name(f"{final.name}.partial")
        self.data = self.partial / "data"

    def is_clean(self) -> bool:
        """Whether there is a dataset, and nothing of its preparation is left."""
        # Both exist after a kill between the last two steps.
        return not self.partial.exists() and is_prepared(self.final)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[tuple[int, ...]]:
        """Waits until no other process prepares this dataset.

        Yields the open files whose locks workers should keep.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        file = os.open(self.partial / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log(f"preparing {name}: waiting for another process that prepares it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield (file,)
        finally:
            os.close(file)

    def start(self) -> None:
        """Makes the folders, and removes what killed workers left."""
        self.remove_unfinished()
        for folder in ("data", "journal"):
            (self.partial / folder).mkdir(exist_ok=True)

    def remove_unfinished(self) -> None:
        """Removes what workers have not finished."""
        for path in self.partial.glob("*/*.tmp"):
            path.unlink(missing_ok=True)

    def finished(self) -> set[str]:
        """Returns the names of the shards that were written before."""
        return {path.name for path in self.data.iterdir()}

    def limited(self, tasks: Iterable[Task], workers: int) -> Iterator[Task]:
        """Yields tasks, each when its shard may be written."""
        return iter(tasks)

    def stop(self) -> None:
        """Ends `limited`, whichever thread is in it."""

    def put(self, path: Path, journal: Path) -> None:
        """Takes a finished shard, and its report."""

    def wait(self) -> None:
        """Waits until all shards are where they belong."""

    def complete(self) -> None:
        """Makes the dataset count, now that all its files are written."""
        os.rename(self.data, self.final)

    def close(self) -> None:
        """Ends the work, whether it succeeded or not."""
        self.remove_unfinished()

    def clear(self) -> None:
        """Removes what only the preparation needed."""
        shutil.rmtree(self.partial, ignore_errors=True)


class Bucket(Destination):
    """A folder in a bucket, given by its local copy."""

    def __init__(self, final: Path) -> None:
        """Writes nothing yet."""
        super().__init__(final)
        self._url, self._partial_url = url_of(final), url_of(self.partial)
        self._slots = threading.Semaphore()
        self._stopped = threading.Event()
        self._uploads: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(THREADS)
        self._is_held: Callable[..., bool] = lambda **_: True

    def is_clean(self) -> bool:
        """Whether there is a dataset; what a preparation left harms nothing."""
        return is_prepared(self.final)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[tuple[int, ...]]:
        """Keeps other processes out, by a lease: they are refused."""
        refusal = f"{name}: another process prepares {self._url}"
        with leased(f"{self._partial_url}/lease", refusal, log) as self._is_held:
            yield ()

    def start(self) -> None:
        """Fetches the reports of finished shards; of others nothing is kept."""
        drop(self.data)
        self.partial.mkdir(parents=True, exist_ok=True)
        super().start()
        fetch(self.partial / "journal")

    def finished(self) -> set[str]:
        """Returns the names of the shards that were uploaded."""
        return set(list_objects(str(self._url)))

    def limited(self, tasks: Iterable[Task], workers: int) -> Iterator[Task]:
        """Yields tasks, each when few shards wait to be uploaded."""
        self._slots = threading.Semaphore(workers + WAITING)
        for task in tasks:
            while not self._slots.acquire(timeout=1.0):
                if self._stopped.is_set():
                    return
            yield task

    def stop(self) -> None:
        """Ends `limited`, whichever thread is in it."""
        self._stopped.set()

    def put(self, path: Path, journal: Path) -> None:
        """Uploads a finished shard in the background, and removes it here."""
        self._raise_failure(wait=False)
        self._uploads.append(self._pool.submit(self._upload, path, journal))

    def _upload(self, path: Path, journal: Path) -> None:
        try:
            upload(path, f"{self._url}/{path.name}", self._check_held)
            # Then the report: a shard without one is written again.
            upload(journal, f"{self._partial_url}/journal/{journal.name}")
            path.unlink()
        except BaseException:
            self.stop()
            raise
        self._slots.release()

    def _raise_failure(self, *, wait: bool) -> None:
        waiting = []
        for done in self._uploads:
            if wait or done.done():
                done.result()
            else:
                waiting.append(done)
        self._uploads = waiting

    def wait(self) -> None:
        """Waits for the uploads."""
        self._raise_failure(wait=True)

    def complete(self) -> None:
        """Uploads all other files, the digests last."""
        self._check_held()
        names = {*read_digests(self.data), FILE}
        for name in list_objects(str(self._url)):
            if name not in names:  # of an earlier try
                remove(f"{self._url}/{name}")
        upload_dataset(self.data, self.final, self._check_held)

    def _check_held(self) -> None:
        # Else another process's shards would be replaced, after their digests perhaps.
        if not self._is_held(now=True):
            raise StoppedError(
                f"{self._url}: another process took its preparation over; start this "
                "command again once that one has ended"
            )

    def close(self) -> None:
        """Ends the uploads."""
        self.stop()
        self._pool.shutdown(cancel_futures=True)
        super().remove_unfinished()

    def clear(self) -> None:
        """Removes what only the preparation needed, here and in the bucket."""
        names = [n for n in list_objects(str(self._partial_url)) if n != "lease"]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: remove(f"{self._partial_url}/{n}"), names))
        drop(self.partial)


def upload_dataset(
    folder: Path, final: Path, before: Callable[[], None] = lambda: None
) -> None:
    """Uploads the files of a dataset that are here, the digests last.

    `before` is called before each try of an upload.
    """
    url = url_of(final)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == FILE):
        upload(path, f"{url}/{path.name}", before)


def destination(final: Path) -> Destination:
    """Returns what writes the dataset of a folder, NAME/CONFIG/VERSION."""
    return Destination(final) if url_of(final) is None else Bucket(final)


def log(line: str) -> None:
    """Prints a line on standard error."""
    print(printable(with_urls(line)), file=sys.stderr, flush=True)  # noqa: T201
