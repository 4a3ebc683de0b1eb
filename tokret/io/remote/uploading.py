"""Local copies that are written: a thread uploads files that have changed.

A program writes to the local copy of its output as to any folder, and reports which
files are as a reader should see them. The newest content of each file is uploaded; what
was not uploaded yet when the process is killed is lost, as what no fsync made durable.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokret.io.remote.fetching import TRANSFERS
from tokret.io.remote.objects import list_objects, remove, upload, write_object
from tokret.io.remote.urls import url_of

PERIOD = 30.0  # seconds between two uploads of a file that changes all the time


def publish(path: Path) -> None:
    """Uploads a file, or all files of a folder, now; nothing for other paths.

    Raises:
      StorageError, UnavailableError: as `objects` does.
    """
    url = url_of(path)
    if url is None:
        return
    if not path.is_dir():
        upload(path, url)
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            upload(file, f"{url}/{file.relative_to(path).as_posix()}")


def withdraw(path: Path) -> None:
    """Removes the object of a file; nothing for other paths."""
    url = url_of(path)
    if url is not None:
        remove(url)


def withdraw_folder(path: Path) -> None:
    """Removes all objects of a folder; nothing for other paths.

    Raises:
      StorageError, UnavailableError: as `objects` does.
    """
    url = url_of(path)
    if url is None:
        return
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(lambda name: remove(f"{url}/{name}"), list_objects(url)):
            pass


class Uploads:
    """Uploads changed files in a thread, each at most every `PERIOD` seconds.

    A context manager; its end uploads what is left. Of paths that are no local copies
    nothing is uploaded, and no thread is started. A file is read into memory.
    """

    def __init__(self, period: float = PERIOD) -> None:
        """Starts nothing before the first file."""
        self._period = period
        self._changed: dict[Path, None] = {}
        self._due: dict[Path, float] = {}
        self._wake = threading.Condition()
        self._uploading = threading.Lock()
        self._ends = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def changed(self, path: Path) -> None:
        """Reports that a file has changed, and is as a reader should see it.

        Raises:
          StorageError, UnavailableError: if an earlier upload failed.
        """
        if url_of(path) is None:
            return
        if self._error is not None:
            raise self._error
        with self._wake:
            self._changed[path] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._wake.notify()

    def flush(self) -> None:
        """Uploads what has changed so far, and returns when it is there.

        Raises:
          StorageError, UnavailableError: if it fails, or an earlier upload failed.
        """
        with self._wake:
            changed = [*self._changed]
        for path in changed:
            self._upload(path)
        with self._uploading:  # what the thread is uploading meanwhile
            if self._error is not None:
                raise self._error

    def __enter__(self) -> "Uploads":
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Uploads what is left; its error is raised if there is no other."""
        with self._wake:
            self._ends = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _work(self) -> None:
        while self._error is None and (path := self._next()) is not None:
            self._upload(path)

    def _upload(self, path: Path) -> None:
        """Uploads a file if it has changed; keeps the error, if there is none yet."""
        with self._uploading:  # an older content must not come last
            with self._wake:
                if self._error is not None or path not in self._changed:
                    return  # another thread was faster
                del self._changed[path]
            try:
                # Its bytes as they are now: it may grow while they are sent.
                write_object(f"{url_of(path)}", path.read_bytes())
            except FileNotFoundError:
                pass  # removed meanwhile
            except BaseException as error:
                self._error = error
            self._due[path] = time.monotonic() + self._period

    def _next(self) -> Path | None:
        """Waits for a file whose time has come; None at the end."""
        with self._wake:
            while True:
                now = time.monotonic()
                waits = {p: self._due.get(p, now) - now for p in self._changed}
                first = min(waits, key=waits.__getitem__, default=None)
                if first is not None and (waits[first] <= 0 or self._ends):
                    return first
                if self._ends:
                    return None
                self._wake.wait(waits[first] if first is not None else None)
