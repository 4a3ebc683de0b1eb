"""Shards of a dataset in a bucket, on the local disk while they are read.

They are fetched when they are read, or before by threads, compared with their digests,
and removed, those that were not read for longest first, before they take more than a
number of bytes.
"""

import collections
import contextlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from tokret.data.preparing.dataset_digests import FileDigest, verify_file
from tokret.errors import UserError
from tokret.io.remote.objects import download
from tokret.io.remote.urls import url_of
from tokret.names import one_line

THREADS = 8  # that fetch ahead
TRIES = 2  # downloads of a shard that arrives damaged
# As TFDS opens shards: each record is read by itself.
READER = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 2**15}


class RemoteShards:
    """The shards of all splits of one dataset, by file name; for any threads."""

    def __init__(
        self, folder: Path, digests: Mapping[str, FileDigest], max_bytes: int
    ) -> None:
        """Keeps what earlier programs fetched, as far as it fits.

        Args:
          folder: of the dataset, the local copy of one in a bucket.
          digests: of the shards, by file name.
          max_bytes: that the local files of all shards may take; one shard may
            always be there.
        """
        self._folder, self._url = folder, url_of(folder)
        self._digests = digests
        self._max_bytes = max_bytes
        self._changes = threading.Condition()
        # What is on the disk, the one that was read last at the end; None: not opened.
        self._here: dict[str, ArrayRecordReader | None] = {}
        self._fetching: set[str] = set()
        self._kept: frozenset[str] = frozenset()  # never removed
        self._ahead: collections.deque[str] = collections.deque()
        self._threads: list[threading.Thread] = []
        with self._changes:
            self._here = {n: None for n in digests if (folder / n).is_file()}
            self._evict()

    def read(self, name: str, record: int) -> bytes:
        """Reads a record of a shard, which is fetched if it is not here.

        Raises:
          UserError: if the shard is missing, or damaged after a second download.
          UnavailableError: if the storage fails for too long.
          RuntimeError: of array_record, if the record cannot be read.
        """
        return bytes(self._open(name).read([record])[0])

    def fetch(self, name: str) -> None:
        """Fetches a shard, if it is not here; raises what `read` does of shards."""
        self._open(name)

    def keep(self, names: Iterable[str]) -> None:
        """Fetches shards in the background, in this order, and keeps these alone."""
        names = list(names)
        with self._changes:
            self._kept = frozenset(names)
            self._ahead.clear()
        self.read_ahead(names)

    def read_ahead(self, names: Iterable[str]) -> None:
        """Fetches shards in the background."""
        with self._changes:
            known = {*self._fetching, *self._ahead}
            new = [n for n in names if n not in known and not self.has(n)]
            self._ahead.extend(new)
            if new and not self._threads:
                self._threads = [
                    threading.Thread(target=self._fetch_ahead, daemon=True)
                    for _ in range(THREADS)
                ]
                for thread in self._threads:
                    thread.start()
            self._changes.notify_all()

    def has(self, name: str) -> bool:
        """Whether a shard is on the local disk, and whole."""
        return self._here.get(name) is not None

    def nbytes_here(self) -> int:
        """Returns the bytes that shards take on the local disk."""
        with self._changes:
            return self._taken()

    def _taken(self) -> int:
        return sum(self._digests[n].nbytes for n in (*self._here, *self._fetching))

    def _open(self, name: str) -> ArrayRecordReader:
        with self._changes:
            while name in self._fetching:
                self._changes.wait()
            if name in self._here:
                reader = self._here.pop(name)
                self._here[name] = reader
                if reader is not None:
                    return reader
            self._start(name)
        return self._fetch(name)

    def _start(self, name: str) -> None:
        """Marks a shard as being fetched; its bytes count from now on."""
        self._here.pop(name, None)
        self._fetching.add(name)
        self._evict()

    def _evict(self) -> None:
        """Removes what was not read for longest; a reader that is in use ends alone."""
        taken = self._taken()
        for name in list(self._here):
            if taken <= self._max_bytes:
                return
            if name not in self._kept:
                del self._here[name]
                with contextlib.suppress(OSError):  # else its waiters wait for ever
                    (self._folder / name).unlink()
                taken -= self._digests[name].nbytes

    def _fetch(self, name: str) -> ArrayRecordReader:
        reader = None
        try:
            reader = self._obtain(self._folder / name)
        finally:
            with self._changes:
                self._fetching.discard(name)
                if reader is not None:
                    self._here[name] = reader
                self._changes.notify_all()
        return reader

    def _obtain(self, path: Path) -> ArrayRecordReader:
        problem = ""
        if not path.is_file() or self._problem(path):
            for _ in range(TRIES):
                download(f"{self._url}/{path.name}", path)
                problem = self._problem(path)
                if not problem:
                    break
                path.unlink(missing_ok=True)
            else:
                raise UserError(
                    f"{self._url}: damaged ({problem}); prepare the dataset again, or "
                    "restore this object"
                )
        return ArrayRecordReader(str(path), **READER)

    def _problem(self, path: Path) -> str:
        """Why a shard is not as it was written; "" if it is."""
        try:
            verify_file(path, self._digests)
        except (ValueError, OSError) as error:
            return one_line(error)
        return ""

    def _fetch_ahead(self) -> None:
        while True:
            with self._changes:
                while not self._ahead:
                    self._changes.wait()
                name = self._ahead.popleft()
                if name in self._fetching or self.has(name):
                    continue
                self._start(name)
            try:
                self._fetch(name)
            except Exception:
                continue  # reading it raises the error again
