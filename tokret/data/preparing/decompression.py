"""Compressed archives, read once from their start, within limits.

Archives come from the internet: one that grows far beyond what photos do is refused
before it fills the memory or the disk.
"""

import contextlib
import gzip
import os
import zlib
from pathlib import Path

from tokret.errors import UserError
from tokret.io.regular_files import open_file

CHUNK = 2**20
# A stream may grow to this many times the archive, and to this many bytes in any case:
# the real ones grow by some percent.
MAX_GROWTH = 20
FREE_GROWTH = 256 * 2**20


def is_compressed(path: Path) -> bool:
    """Whether a file begins as gzip does.

    Raises:
      UserError: if it is not a file, or cannot be read.
    """
    with open_file(path) as file:
        return file.read(2) == b"\x1f\x8b"


class Decompressed(contextlib.AbstractContextManager["Decompressed"]):
    """The contents of a gzip archive."""

    def __init__(self, path: Path) -> None:
        """Opens the archive.

        Raises:
          UserError: if it is not a file, or cannot be read.
        """
        self._path = path
        self._raw = open_file(path)
        self._stream = gzip.GzipFile(fileobj=self._raw)
        size = os.fstat(self._raw.fileno()).st_size
        self._limit = max(FREE_GROWTH, MAX_GROWTH * size)
        self._count = 0

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def position(self) -> int:
        """How many bytes of the archive were read."""
        return self._raw.tell()

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes, fewer at the end.

        Raises:
          UserError: if the archive is damaged or truncated, or grows beyond the limits.
        """
        chunks = []
        while size > 0 and (chunk := self._read(min(size, CHUNK))):
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _read(self, size: int) -> bytes:
        try:
            chunk = self._stream.read(size)
        except EOFError as error:
            raise self._error("is truncated") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._error(f"is damaged ({error})") from error
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}") from error
        self._count += len(chunk)
        if self._count > self._limit:
            raise self._error(
                f"grows to more than {self._limit >> 20} MiB when it is decompressed, "
                "which no archive of photos does"
            )
        return chunk

    def _error(self, problem: str) -> UserError:
        return UserError(f"{self._path} {problem}; download it again")
