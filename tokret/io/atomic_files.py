"""Files that are written whole or not at all, whatever ends the process."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tokret.errors import UserError
from tokret.io.drafts import make_draft


def write_whole(path: Path, content: str | bytes, draft: Path | None = None) -> None:
    """Writes bytes, or text as UTF-8; a reader sees the old file or the whole new one.

    Arguments and errors are those of `replacing`.
    """
    with replacing(path, draft) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(
    path: Path, draft: Path | None = None, errors: tuple[type[Exception], ...] = ()
) -> Iterator[Path]:
    """Yields a file to write to, which replaces another in the end, atomically.

    Args:
      path: the file; its folder must exist. Its permissions stay.
      draft: the file to write to, in the same folder; None: of `make_draft`.
      errors: of a library that writes the draft, which mean that it cannot be written.

    Raises:
      UserError: the file cannot be written.
    """
    # In the same folder: os.replace is atomic only within one file system.
    draft = draft or make_draft(path)
    refusals: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        draft.touch()
        mode = stat.S_IMODE((path if path.exists() else draft).stat().st_mode)
        draft.chmod(mode)
        yield draft
        draft.chmod(mode)  # a library may have replaced the draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except refusals as error:
        why = getattr(error, "strerror", None) or str(error)[:200]
        raise UserError(f"{path}: cannot be written: {why}") from error
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a folder's list of names durable, not only the files' contents."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def require_writable(path: Path | None, argument: str) -> None:
    """Checks early that a file can be written, before long work begins; None passes.

    Raises:
      UserError: naming the argument, if it is not a file or its folder takes no files.
    """
    if path is None:
        return
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise UserError(f"{argument}: {path} is not a file; name one in a folder")
        draft = make_draft(target)
        draft.touch()
        draft.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{argument}: {path} cannot be written: {why}; name a file in an existing "
            "folder"
        ) from error


def require_folder(path: Path, argument: str) -> None:
    """Checks early that a folder exists or could be made: its path names no file.

    Raises:
      UserError: naming the argument and the file.
    """
    for part in (path, *path.parents):
        if part.is_dir():
            return
        if part.exists():
            raise UserError(f"{argument}: {part} is a file; name a folder")
