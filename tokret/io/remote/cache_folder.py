"""The folder of local copies, each used by one program at a time.

A program makes a local copy equal to what the bucket has. Another on the same host that
was writing to the same copy would lose what it has not uploaded yet, so that one gets a
folder of its own: CACHE, then CACHE/2, CACHE/3 and so on.
"""

import fcntl
import itertools
import os
from pathlib import Path

from tokret.errors import UserError

CACHE = "TOKRET_CACHE"  # the environment's folder of local copies
DEFAULT_CACHE = "~/.cache/tokret/remote"
CLAIMED = "TOKRET_CACHE_CLAIMED"  # for processes that a program starts: its folder
LOCK = ".lock"

_claimed: dict[Path, Path] = {}  # by the folder that the environment chose


def claimed_folder() -> Path | None:
    """Returns this program's folder of local copies; None if it has no copy."""
    return _claimed.get(chosen_folder())


def claim_folder() -> Path:
    """Returns this program's folder of local copies, its own until the process ends.

    Raises:
      UserError: if it cannot be made or locked.
    """
    chosen = chosen_folder()
    if chosen not in _claimed:
        given = os.environ.get(CLAIMED)
        _claimed[chosen] = Path(given) if given else _first_free(chosen)
    return _claimed[chosen]


def inherited() -> dict[str, str]:
    """Returns what the environment of a process needs to use this program's copies."""
    folder = claimed_folder()
    return {} if folder is None else {CLAIMED: str(folder)}


def chosen_folder() -> Path:
    """Returns the folder that the environment chooses."""
    return Path(os.environ.get(CACHE) or DEFAULT_CACHE).expanduser().resolve()


def _first_free(chosen: Path) -> Path:
    for number in itertools.count(1):
        folder = chosen if number == 1 else chosen / str(number)
        try:
            if _lock(folder):
                return folder
        except OSError as error:
            raise UserError(
                f"{folder}: the folder of local copies cannot be used "
                f"({error.strerror}); name one on a local disk: {CACHE}=FOLDER in the "
                "environment"
            ) from error
    raise AssertionError


def _lock(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            return False
        raise
    return True  # the file is never closed: the lock ends with the process
