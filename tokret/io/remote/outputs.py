"""Outputs of commands, in a local folder or in object storage, checked early."""

from pathlib import Path

from tokret.errors import UserError
from tokret.io.atomic_files import require_folder, require_writable
from tokret.io.remote.objects import find_object, list_names, remove, write_object
from tokret.io.remote.retrying import StorageError
from tokret.io.remote.urls import url_of

PROBE = ".probe"  # an object that shows that one can be written


def prepare_file(path: Path | None, argument: str) -> None:
    """Checks early that a file can be written, before long work begins; None passes.

    In object storage a tiny object is written beside it, and removed; the folder of its
    local copy is made.

    Raises:
      UserError: naming the argument, if it is not a file or cannot be written.
      UnavailableError: as `objects` does.
    """
    url = None if path is None else url_of(path)
    if path is None or url is None:
        require_writable(path, argument)
        return
    folder, _, name = url.rpartition("/")
    if folder.endswith("/"):
        raise UserError(f"{argument}: {url} is a bucket; name a file, {url}/FILE")
    if path.is_dir() or list_names(url):
        raise UserError(f"{argument}: {url} is not a file; name one in a folder")
    _try_to_write(url, folder, argument)
    path.parent.mkdir(parents=True, exist_ok=True)


def prepare_folder(path: Path, argument: str) -> None:
    """Checks early that a folder exists or can be made, as `prepare_file` does.

    The folder of a local copy is made.
    """
    url = url_of(path)
    if url is None:
        require_folder(path, argument)
        return
    if find_object(url) is not None:
        raise UserError(f"{argument}: {url} is a file; name a folder")
    _try_to_write(url, url, argument)
    path.mkdir(parents=True, exist_ok=True)


def is_taken(path: Path) -> bool:
    """Whether a file or folder exists, in object storage for a local copy."""
    url = url_of(path)
    if url is None:
        return path.exists() or path.is_symlink()
    return find_object(url) is not None or bool(names_in(path))


def names_in(folder: Path) -> set[str]:
    """Returns the names of what is directly in a folder; none if there is none."""
    url = url_of(folder)
    if url is None:
        return {path.name for path in folder.iterdir()} if folder.exists() else set()
    # A process that was killed may have left the probe.
    return {name.rstrip("/") for name in list_names(url)} - {PROBE}


def _try_to_write(url: str, folder: str, argument: str) -> None:
    probe = f"{folder}/{PROBE}"
    try:
        write_object(probe, b"")
        remove(probe)
    except StorageError as error:
        words = str(error).replace(probe, url)
        raise StorageError(f"{argument}: {words}") from error
