"""Files that are there whole or not at all, whatever ends the process."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from tokret.errors import UserError


def write_whole(path: Path, content: str | bytes, draft: Path | None = None) -> None:
    """Writes a file; whoever reads it sees the old one or the whole new one.

    Who may read and write it stays as it was.

    Args:
      path: the file; its folder must exist.
      content: bytes, or text for UTF-8.
      draft: where it is written first. A name of its own for every process, unless one
        is given: where only one process writes, what a killed one left is then
        written over.

    Raises:
      UserError: the file cannot be written.
    """
    # In the same folder: os.replace is atomic only within one file system.
    draft = draft or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            with contextlib.suppress(FileNotFoundError):  # it is new
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes it last which names a folder holds, not only what is in the files."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def require_writable(path: Path | None, argument: str) -> None:
    """Checks early that a file can be written, before long work begins.

    Args:
      path: the file; None passes.
      argument: its name in errors.

    Raises:
      UserError: if it is not a file, or its folder takes no files.
    """
    if path is None:
        return
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise UserError(f"{argument}: {path} is not a file; name one in a folder")
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
            pass
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{argument}: {path} cannot be written: {why}; name a file in an existing "
            "folder"
        ) from error
