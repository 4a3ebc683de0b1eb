"""Where the bytes of photos are, in files or inside archives, and reading them."""

import contextlib
import dataclasses
import os
from typing import BinaryIO, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.io.regular_files import open_file
from tokret.names import one_line, printable

MAX_BYTES = 512 * 2**20  # of an encoded photo; the largest in use have some 50 MiB


class BadPhotoError(Exception):
    """A photo that cannot be used; the message is the reason, in a few words."""


class PhotoLocation(NamedTuple):
    """Where a photo's bytes are."""

    path: str  # a file
    offset: int = 0  # of the photo's first byte in the file
    size: int = -1  # in bytes; -1 for the whole file


@dataclasses.dataclass(frozen=True)
class PhotoLocations:
    """Locations of N photos as arrays, since there may be millions."""

    files: list[str]  # that contain them
    file: np.ndarray  # [N] int32 index into `files`, -1 for a photo that is missing
    offset: np.ndarray  # [N] int64 of the photo's first byte in its file
    size: np.ndarray  # [N] int64 in bytes, -1 for the whole file

    @classmethod
    def unknown(cls, photos: int) -> "PhotoLocations":
        """Locations that are all missing."""
        return cls(
            [],
            np.full(photos, -1, np.int32),
            np.zeros(photos, np.int64),
            np.full(photos, -1, np.int64),
        )

    def __getitem__(self, row: int) -> PhotoLocation:
        """The location of a photo that is not missing."""
        return PhotoLocation(
            self.files[self.file[row]], int(self.offset[row]), int(self.size[row])
        )

    def add(
        self,
        path: str,
        rows: int | np.ndarray,
        offset: int | np.ndarray,
        size: int | np.ndarray,
    ) -> None:
        """Sets the locations of photos that were missing until now."""
        if not self.files or self.files[-1] != path:
            self.files.append(path)
        self.file[rows] = len(self.files) - 1
        self.offset[rows] = offset
        self.size[rows] = size


class PhotoReader(contextlib.AbstractContextManager["PhotoReader"]):
    """Reads photos; keeps the last file open, as an archive contains many in a row."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._path = ""

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self, path: str) -> BinaryIO:
        if self._file is None or self._path != path:
            self.__exit__()
            self._file, self._path = open_file(path), path
        return self._file

    def read(self, location: PhotoLocation) -> bytes:
        """Returns the photo's bytes.

        Raises:
          BadPhotoError: if they are missing, too many, or cannot be read.
        """
        try:
            file = self._open(location.path)
            whole = os.fstat(file.fileno()).st_size
            size = whole if location.size < 0 else location.size
            if size > MAX_BYTES:
                raise BadPhotoError(f"larger than {MAX_BYTES >> 20} MiB")
            file.seek(location.offset)
            data = file.read(size)
        except UserError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise BadPhotoError(_missing(location.path)) from error
            reason = str(error).removeprefix(f"{one_line(location.path)}: ")
            raise BadPhotoError(reason) from error
        except OSError as error:
            raise BadPhotoError(f"cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise BadPhotoError("the file ends before the photo does")
        return data


def _missing(path: str) -> str:
    if not os.path.islink(path):
        return "missing"
    return f"a link to {printable(os.readlink(path))}, which does not exist"
