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
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from tokret.errors import UserError

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


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading bytes; it never waits.

    Raises:
      UserError: the path cannot be opened, or names a folder, a pipe or a device.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # the latter for a zero byte in the name
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {why}") from error
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind != stat.S_IFREG:
        os.close(number)
        name = _KINDS.get(kind, "a special file")
        raise UserError(f"{path}: is {name}, where a file is expected")
    return os.fdopen(number, "rb")


def read_file(path: str | Path, max_bytes: int) -> bytes:
    """Reads a whole regular file of a bounded size.

    Args:
      path: the file.
      max_bytes: the most that it may have.

    Raises:
      UserError: as `open_file`, the file is larger, or its disk fails.
    """
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read() if size <= max_bytes else b""
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if max(size, len(content)) > max_bytes:
        most = f"{max_bytes / 2**20:g} MiB"
        raise UserError(f"{path}: is larger than {most}, the most that is read")
    return content


@contextlib.contextmanager
def parsing(path: str | Path, remedy: str) -> Iterator[None]:
    """Turns what a parser raises for a damaged file into one line.

    Args:
      path: the file that is parsed.
      remedy: what to do about it, such as "write it with np.save".

    Raises:
      UserError: naming the file, the parser's reason and the remedy. A `UserError` from
        within passes unchanged.
    """
    try:
        yield
    except PARSING_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: damaged ({reason}): {remedy}") from error
