"""Locks, each held by one process at a time: of a file, or of an object of a bucket."""

import contextlib
import fcntl
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tokret.errors import UserError
from tokret.io.remote.leases import leased
from tokret.io.remote.urls import url_of


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[Callable[..., bool]]:
    """Holds a lock file, made if missing; the lock ends with the process at the latest.

    The lock of a local copy is a lease in object storage.

    Yields what returns whether the file is still there: without it others get in. Of a
    lease that is as it was seen last, or with `now=True` as it is.

    Raises:
      UserError: with the text `refusal`, if another process holds it; or the file
        cannot be opened.
      StorageError, UnavailableError: of a local copy, as `objects` does.
    """
    if (url := url_of(path)) is not None:
        with leased(url, refusal, functools.partial(_print_note, url)) as is_held:
            yield is_held
        return
    while True:
        with _open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(refusal) from error
            # The one who held it may have removed the file meanwhile.
            if not _is_open(path, file.fileno()):
                continue
            yield functools.partial(_is_open, path, file.fileno())
            return


def _print_note(url: str, line: str) -> None:
    print(f"note: {url}: {line}", file=sys.stderr, flush=True)  # noqa: T201


def _open(path: Path) -> BinaryIO:
    # To read and write, since a pipe of this name would be waited for.
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error
    return os.fdopen(number, "rb")


def _is_open(path: Path, number: int, *, now: bool = True) -> bool:
    """Whether an open file is still that of the path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except OSError:
        return False
