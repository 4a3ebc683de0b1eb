"""Regular files, opened for reading without waiting, and what reading them may raise.

A path from outside may name a folder, a named pipe that nobody writes to, or a device
that never ends. Libraries that parse files raise many kinds of errors for damaged ones.
"""

import contextlib
import lzma
import os
import stat
import struct
import tarfile
import tokenize
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from tokret.errors import UserError
from tokret.names import one_line

# What parsers of this project and of its libraries raise for a damaged file.
PARSING_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    msgspec.MsgspecError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path, *, follow_links: bool = True) -> BinaryIO:
    """Opens a regular file for reading bytes; it never waits.

    Args:
      path: the file.
      follow_links: whether the path may be a link to the file.

    Raises:
      UserError: the path cannot be opened, or names a folder, a pipe or a device.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(path, flags if follow_links else flags | os.O_NOFOLLOW)
    # ValueError and UnicodeError for a zero byte or a lone surrogate in the name.
    except (OSError, ValueError) as error:
        raise UserError(one_line(f"{path}: cannot be read: {_why(error)}")) from error
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind != stat.S_IFREG:
        os.close(number)
        name = _KINDS.get(kind, "a special file")
        raise UserError(one_line(f"{path}: is {name}, where a file is expected"))
    return os.fdopen(number, "rb")


def read_file(path: str | Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Reads a whole regular file of a bounded size.

    Args:
      path: the file.
      max_bytes: the most that it may have.
      follow_links: as `open_file`.

    Raises:
      UserError: as `open_file`, the file is larger, or its disk fails.
    """
    with open_file(path, follow_links=follow_links) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) if size <= max_bytes else b""
            if len(content) > size:  # some file systems report no sizes
                content += file.read(max_bytes + 1 - len(content))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {_why(error)}") from error
    if max(size, len(content)) > max_bytes:
        most = f"{max_bytes / 2**20:g} MiB"
        raise UserError(f"{path}: is larger than {most}, the most that is read")
    return content


@contextlib.contextmanager
def parsing(
    path: str | Path, remedy: str, errors: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turns what a parser raises for a damaged file into one line.

    Only the parser's own call belongs within. Wrong names and wrong types in code of
    this package are its defects, and pass unchanged.

    Args:
      path: the file that is parsed.
      remedy: what to do about it, such as "write it with np.save".
      errors: further ones of this parser.

    Raises:
      UserError: naming the file, the parser's reason and the remedy. A `UserError` from
        within passes unchanged.
    """
    try:
        yield
    except (*PARSING_ERRORS, *errors) as error:
        if isinstance(error, AttributeError | TypeError) and _is_own(error):
            raise
        reason = one_line(error)[:200] or type(error).__name__
        words = f"{path}: damaged ({reason}): {remedy}"
        raise UserError(one_line(words)) from error


def _is_own(error: Exception) -> bool:
    """Whether an error was raised by code of this package, other than the caller's."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).startswith("tokret.")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
