"""Runs in object storage: what of a run is fetched to its local copy, and when.

A checkpoint in a bucket counts if its SHA256SUMS is there: it is uploaded last and
removed first. To list checkpoints and to choose one takes two small files of each.
"""

import re
from pathlib import Path

from tokret.io.remote.fetching import fetch
from tokret.io.remote.objects import MissingObjectError
from tokret.io.remote.urls import url_of
from tokret.training import checkpoint_digests, checkpoint_metadata

_SMALL = re.compile(
    rf"config\.json|(checkpoints/)?(\d+/)?"
    rf"({checkpoint_metadata.FILE}|{checkpoint_digests.FILE})"
)
TRIES = 3  # of a run that trains, and removes a checkpoint meanwhile


def is_small(name: str) -> bool:
    """Whether `fetch_run` fetches a file, by its name in the folder of a run.

    So are those of a checkpoint, by their names in its own folder.
    """
    return _SMALL.fullmatch(name) is not None


def fetch_run(path: Path) -> Path:
    """Fetches what lists a run's checkpoints, and its config; not their arrays.

    `list_steps`, `find_checkpoint`, `read_metadata` and `read_config` then read the
    local copy. Paths that are no local copies are left as they are.

    Args:
      path: the folder of a run or of one checkpoint.

    Returns:
      The path. Nothing is there if the bucket has nothing.

    Raises:
      StorageError, UnavailableError: as `objects` does.
    """
    if path.parent.name == "checkpoints":
        fetch(path.parent.parent / "config.json")
    for _ in range(TRIES - 1):
        try:
            return fetch(path, is_small)
        except MissingObjectError:
            continue
    return fetch(path, is_small)


def fetch_checkpoint(path: Path) -> Path:
    """Fetches a whole checkpoint; `open_arrays` does it before it reads.

    Returns the path; errors are those of `fetch_run`.
    """
    return fetch(path)


def drop_arrays(checkpoint: Path) -> None:
    """Removes what `fetch_run` would not fetch from the local copy of a checkpoint."""
    if url_of(checkpoint) is None:
        return
    for file in checkpoint.rglob("*"):
        if file.is_file() and not is_small(file.relative_to(checkpoint).as_posix()):
            file.unlink()
