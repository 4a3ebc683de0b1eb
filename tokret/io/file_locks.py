"""Lock files, each held by one process at a time."""

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tokret.errors import UserError


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[Callable[[], bool]]:
    """Holds a lock file, made if missing; the lock ends with the process at the latest.

    Yields what returns whether the file is still there: without it others get in.

    Raises:
      UserError: with the text `refusal`, if another process holds it; or the file
        cannot be opened.
    """
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


def _open(path: Path) -> BinaryIO:
    # To read and write, since a pipe of this name would be waited for.
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error
    return os.fdopen(number, "rb")


def _is_open(path: Path, number: int) -> bool:
    """Whether an open file is still that of the path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except OSError:
        return False
