"""Lines of a Markdown page that a program writes, between two marks of their own."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole


def marks(name: str) -> tuple[str, str]:
    """Returns the lines before and after those that a program writes."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def replace(path: Path, name: str, lines: Sequence[str]) -> None:
    """Replaces what is between a page's marks.

    Raises:
      UserError: if it cannot be read or written, or has not each mark on one line.
    """
    before, after, line = _around(path, name)
    begin, _ = marks(name)
    write_whole(path.resolve(), before + line.join([begin, *lines, ""]) + after)


def require(path: Path, name: str) -> None:
    """Raises a UserError if `replace` would, for how the page is now."""
    _around(path, name)


def _around(path: Path, name: str) -> tuple[str, str, str]:
    """Returns what is before and after the lines, and how the page's lines end."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    begin, end = marks(name)
    begins, ends = (
        list(re.finditer(f"^{mark}\r?$", text, re.MULTILINE)) for mark in (begin, end)
    )
    if len(begins) != 1 or len(ends) != 1 or begins[0].end() > ends[0].start():
        raise UserError(f"{path} needs the lines {begin} and {end}, each once")
    line = "\r\n" if begins[0][0].endswith("\r") else "\n"
    return text[: begins[0].start()], text[ends[0].start() :], line
