"""The folder of an index: made, locked for a change, and removed if unfinished."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.io.remote.outputs import names_in, prepare_folder
from tokret.io.remote.retrying import UnavailableError, at_once
from tokret.io.remote.urls import url_of
from tokret.runtime.ending import keeps
from tokret.search.catalogue import FILE, LOCK, PARTS, WEIGHTS
from tokret.search.catalogue_schema import journal_of, remove
from tokret.search.catalogue_writing import DRAFT
from tokret.search.index_writer import REBUILD, sweep
from tokret.search.remote_index import fetch_index

NOTHING_KEPT = "nothing was extracted yet; the same command starts again"
# What a process that was killed may have made before the first catalogue.
_UNFINISHED = {PARTS, WEIGHTS, LOCK, DRAFT, journal_of(Path(DRAFT)).name}


@contextlib.contextmanager
def locked(index: Path) -> Iterator[Callable[..., bool]]:
    """Creates the folder, locks it against other processes, and sweeps it.

    If it is no index in the end, what was made is removed. Yields what returns whether
    the lock is still held.
    """
    if url_of(index) is not None:
        prepare_folder(index, "index")
    try:
        if index.exists() and not index.is_dir():
            raise UserError(f"index={index} is a file; name a folder")
        names = names_in(index)
        if names and FILE not in names:
            # Of a process that was killed, which had made the lock first; a lease may
            # be gone.
            is_left = LOCK in names or url_of(index) is not None
            strange = names - (_UNFINISHED if is_left else set())
            if strange:
                raise UserError(
                    f"index={index} has other files, such as {min(strange)}; name an "
                    "empty folder, or one that does not exist yet"
                )
        made = [path for path in (index, *index.parents) if not path.exists()]
        index.mkdir(parents=True, exist_ok=True)
        (index / LOCK).touch()
    except OSError as error:
        raise UserError(
            f"index={index} cannot be made: {error.strerror}; name another folder"
        ) from error
    refusal = f"index={index}: another process is updating it; wait for it"
    with held(index / LOCK, refusal) as is_held:
        undo = functools.partial(_remove_unless_index, index, made, is_held)
        if FILE not in names:  # before, another process may be making it
            keeps(NOTHING_KEPT, undo)
        try:
            fetch_index(index, FILE, REBUILD)
            sweep(index)
            yield is_held
        finally:
            undo()


def _remove_unless_index(
    index: Path, made: Sequence[Path], is_held: Callable[..., bool]
) -> None:
    if (index / FILE).exists() or not _is_surely(is_held):
        return
    with contextlib.suppress(UnavailableError), at_once():
        sweep(index)
    remove(index / DRAFT)
    (index / LOCK).unlink(missing_ok=True)
    for folder in (index / PARTS, index / WEIGHTS, *made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_surely(is_held: Callable[..., bool]) -> bool:
    with contextlib.suppress(UserError), at_once():
        return is_held(now=True)
    return False
