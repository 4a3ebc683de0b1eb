"""Values of the benchmarks' flags, checked before anything is measured."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tokret.errors import UserError


def turns(text: str) -> int:
    """Parses --turns."""
    value = int(text) if text.isdecimal() and len(text) < 5 else 0
    if value < 1:
        raise UserError(f"--turns={text:.20}: 1 to 9999 turns can be made")
    return value


def minutes(text: str) -> float:
    """Parses --minutes."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise UserError(f"--minutes={text:.20}: it must be above 0 and below a million")
    return value


def count(name: str) -> Callable[[str], int]:
    """Returns the parser of a flag that is a count."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 12 or int(text) < 1:
            raise UserError(f"{name}={text:.20}: it must be a number, at least 1")
        return int(text)

    return read


def folder(name: str) -> Callable[[str], Path]:
    """Returns the parser of a flag that is a folder."""

    def read(text: str) -> Path:
        if not text or not Path(text).is_dir():
            raise UserError(f"{name}={text} is no folder")
        return Path(text)

    return read


def new_file(text: str) -> Path:
    """Parses --json: a file that can be written, where only files are replaced."""
    try:
        path = Path(text).resolve()
        if path.exists() and not path.is_file():
            raise UserError(f"--json={text} is no file; name one in a folder")
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"--json={text} cannot be written: {why}; name a file in a "
            "folder that exists"
        ) from error
    return path
