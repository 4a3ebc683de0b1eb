"""Files that one process at a time may hold."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from tokret.errors import UserError


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, made where it is missing; the lock goes with the process.

    Args:
      path: the lock file.
      refusal: the error's words where another process holds it.

    Raises:
      UserError: if another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(refusal) from error
        yield
