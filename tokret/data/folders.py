"""Photos below a folder, however it is nested; what is skipped is counted.

Training, indexing, checking and evaluating all list photos here.
"""

import collections
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tokret.data.photo_formats import SUFFIXES
from tokret.errors import UserError
from tokret.names import FIRST, counted, first_names, is_valid_name, printable

# Folders of thumbnails, deleted files and resource forks; so are all that begin with a
# dot, as do the AppleDouble files ._NAME.
SYSTEM_FOLDERS = frozenset(
    {
        *("@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "__MACOSX"),
        *("lost+found", "System Volume Information"),
    }
)
CATALOGUE, PARTS = "catalogue.sqlite", "parts"  # what an index of photos has


class PhotoWalk:
    """Lists files below a root by name, and counts what it skips.

    Hidden files and folders, those of `SYSTEM_FOLDERS`, and names with control
    characters or invalid text are skipped. The root's own name may be any. Indexes of
    photos are no part of it. A folder in a bucket is given with all files below it.
    """

    def __init__(self, root: Path, listed: Sequence[Path] | None = None) -> None:
        self.root = root
        self._listed = listed
        self._suffixes: collections.Counter[str] = collections.Counter()
        self._hidden: list[str] = []
        self._invalid: list[str] = []

    def accepts(self, path: Path) -> bool:
        """Whether a path below the root is listed; notes what is skipped."""
        if not is_valid_name(path.name):
            self._invalid.append(self._relative(path))
        elif path.name.startswith(".") or path.name in SYSTEM_FOLDERS:
            self._hidden.append(self._relative(path))
        else:
            return True
        return False

    def files(self, folder: Path | None = None) -> Iterator[Path]:
        """Lists all files below a folder (None: the root), each link to one once.

        If the folder does not exist, there are no files.

        Raises:
          UserError: if a folder cannot be read.
        """
        if self._listed is not None:
            yield from self._files_listed(folder or self.root, self._listed)
            return
        seen = set()
        start = folder or self.root
        for here, inner, files in os.walk(start, onerror=_refuse, followlinks=True):
            info = os.stat(here)
            # A link to a folder above would be followed for ever.
            if (info.st_dev, info.st_ino) in seen:
                inner.clear()
                continue
            seen.add((info.st_dev, info.st_ino))
            if CATALOGUE in files and PARTS in inner:
                inner.clear()
                continue
            inner[:] = [
                name for name in sorted(inner) if self.accepts(Path(here, name))
            ]
            for name in sorted(files):
                path = Path(here, name)
                if self.accepts(path):
                    yield path

    def _files_listed(self, folder: Path, listed: Sequence[Path]) -> Iterator[Path]:
        known = {folder: True}  # whether files below a folder are listed
        indexes = {path.parent for path in listed if path.name == CATALOGUE}

        def descends(inner: Path) -> bool:
            if inner not in known:
                above = descends(inner.parent)
                is_listed = above and inner.parent not in indexes
                known[inner] = is_listed and self.accepts(inner)
            return known[inner]

        for path in sorted(listed):
            if path.is_relative_to(folder) and descends(path.parent):
                if self.accepts(path):
                    yield path

    def photos(self, folder: Path | None = None) -> Iterator[Path]:
        """Lists the files of `files` that have one of `SUFFIXES`, in any case."""
        return (path for path in self.files(folder) if self.is_photo(path))

    def is_photo(self, path: Path) -> bool:
        """Whether a file has one of `SUFFIXES`; counts others."""
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return True
        self._suffixes[suffix] += 1
        return False

    def notes(self) -> list[str]:
        """What was skipped, with counts and the first names."""
        notes = []
        if self._suffixes:
            words = [
                f"{printable(suffix, 20) or 'no suffix'} {count:,}"
                for suffix, count in self._suffixes.most_common(FIRST)
            ]
            if len(self._suffixes) > FIRST:
                words.append("others")
            total = self._suffixes.total()
            notes.append(
                f"{counted(total, 'file')} skipped, not photos by their suffix: "
                f"{', '.join(words)}"
            )
        for skipped, kinds, rest in (
            (
                self._hidden,
                ("hidden file or folder", "hidden files and folders"),
                "skipped",
            ),
            (
                self._invalid,
                ("name", "names"),
                "skipped that are not text of one line",
            ),
        ):
            if skipped:
                number = counted(len(skipped), *kinds)
                notes.append(f"{number} {rest}: {first_names(skipped)}")
        return notes

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
