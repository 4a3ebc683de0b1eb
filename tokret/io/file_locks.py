"""Lock files, each held by one process at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from tokret.errors import UserError


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, made if missing; the lock ends with the process at the latest.

    Raises:
      UserError: with the text `refusal`, if another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(refusal) from error
        yield
