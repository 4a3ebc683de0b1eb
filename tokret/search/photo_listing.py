"""The photos of a folder beside those of an index: what is new, changed or gone.

A library may have more photos than fit into memory as Python's objects, so its list is
a temporary file, which SQLite removes.
"""

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from tokret.data.folders import PhotoWalk
from tokret.errors import UserError
from tokret.names import counted, first_names
from tokret.search.catalogue import AT_ONCE
from tokret.search.catalogue_rows import PhotoEntry
from tokret.search.photos import Stamp, read_stamp

Stamps = Mapping[str, Stamp]  # by path relative to the root
Element = TypeVar("Element")


class Listing:
    """The photos below a folder, in the order of their paths, on the disk."""

    notes: list[str]  # on the photos' folders and on what was skipped
    num_photos: int

    def __init__(
        self, root: Path, chosen: Callable[[str], bool] = lambda path: True
    ) -> None:
        """Lists those photos of a folder whose paths relative to it are chosen.

        Links are followed, but no folder is entered twice. `PhotoWalk` documents what
        is skipped.

        Raises:
          UserError: if ROOT is not a folder, or a folder in it cannot be read.
        """
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; name a folder of photos")
        self._connection = sqlite3.connect("", isolation_level=None)
        try:
            self._fill(root, chosen)
        except sqlite3.Error as error:
            self.close()
            raise UserError(
                f"{root}: the list of its photos cannot be written ({error}); free "
                "some space for temporary files"
            ) from error
        except BaseException:
            self.close()
            raise

    def _fill(self, root: Path, chosen: Callable[[str], bool]) -> None:
        for table in ("found", "changed"):
            self._connection.execute(
                f"CREATE TABLE {table}(name PRIMARY KEY, size, modified) WITHOUT ROWID"
            )
        self._connection.execute("CREATE TABLE gone(name PRIMARY KEY) WITHOUT ROWID")
        walk = PhotoWalk(root)
        folders: set[str] = set()
        start = len(os.path.join(root, ""))  # of a name within its path

        def rows() -> Iterator[tuple[str, int, int]]:
            for path in map(str, walk.photos()):
                name = path[start:]
                if not chosen(name):
                    continue
                folders.add(name.rpartition("/")[0])
                yield (name, *read_stamp(path))

        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO found VALUES (?, ?, ?)", rows())
        self._connection.execute("COMMIT")
        self.num_photos = self._count("found")
        self.notes = walk.notes()
        if self.num_photos:
            self.notes.insert(0, _note_on_folders(self.num_photos, folders, root))

    def close(self) -> None:
        """Removes the list."""
        self._connection.close()

    def _count(self, table: str) -> int:
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM {table}")
        return int(count)

    def _names(self, table: str, columns: str) -> Iterator[tuple]:
        after = ""
        words = f"SELECT {columns} FROM {table} WHERE name > ? ORDER BY name LIMIT ?"
        while rows := self._connection.execute(words, (after, AT_ONCE)).fetchall():
            yield from rows
            after = rows[-1][0]

    def stamps(self, table: str = "found") -> Iterator[tuple[str, Stamp]]:
        """Yields the photos with their stamps."""
        for name, size, modified in self._names(table, "name, size, modified"):
            yield name, Stamp(size, modified)

    def compare(self, entries: Iterable[PhotoEntry], rehash: bool) -> int:
        """Compares the list with an index; `changed` and `gone` give the difference.

        Args:
          entries: the photos of the index, in the order of their paths.
          rehash: whether all photos of the list count as changed.

        Returns:
          How many photos are new or changed.
        """
        changed: list[tuple[str, int, int]] = []
        gone: list[tuple[str]] = []
        self._connection.execute("BEGIN")
        for table in ("changed", "gone"):
            self._connection.execute(f"DELETE FROM {table}")
        for name, stamp, entry in merged(self.stamps(), entries):
            if stamp is None:
                gone.append((name,))
            elif rehash or entry is None or entry.stamp != stamp:
                changed.append((name, *stamp))
            if len(changed) + len(gone) >= AT_ONCE:
                self._note(changed, gone)
        self._note(changed, gone)
        self._connection.execute("COMMIT")
        return self._count("changed")

    def _note(self, changed: list, gone: list) -> None:
        self._connection.executemany("INSERT INTO changed VALUES (?, ?, ?)", changed)
        self._connection.executemany("INSERT INTO gone VALUES (?)", gone)
        changed.clear()
        gone.clear()

    def changed(self) -> Iterator[dict[str, Stamp]]:
        """Yields the new and changed photos, some thousands at a time."""
        for some in batched(self.stamps("changed")):
            yield dict(some)

    def gone(self) -> Iterator[list[str]]:
        """Yields the photos of the index that the list lacks, as `changed` does."""
        for some in batched(self._names("gone", "name")):
            yield [name for (name,) in some]


def batched(elements: Iterable[Element]) -> Iterator[list[Element]]:
    """Yields lists of `AT_ONCE` elements, the last one of fewer."""
    rest = iter(elements)
    while some := list(itertools.islice(rest, AT_ONCE)):
        yield some


def merged(
    stamps: Iterable[tuple[str, Stamp]], entries: Iterable[PhotoEntry]
) -> Iterator[tuple[str, Stamp | None, PhotoEntry | None]]:
    """Yields each path of either, in order, with its stamp and its entry."""
    left, right = iter(stamps), iter(entries)
    found, entry = next(left, None), next(right, None)
    while found is not None or entry is not None:
        if entry is None or (found is not None and found[0] < entry.name):
            assert found is not None
            yield *found, None
            found = next(left, None)
        elif found is None or entry.name < found[0]:
            yield entry.name, None, entry
            entry = next(right, None)
        else:
            yield *found, entry
            found, entry = next(left, None), next(right, None)


def _note_on_folders(num_photos: int, inner: set[str], root: Path) -> str:
    folders, number = sorted(inner), counted(num_photos, "photo")
    if folders == [""]:
        return f"{number} directly in {root}"
    direct = f"directly in {root.name or root}"
    names = first_names([folder or direct for folder in folders])
    return f"{number} in {counted(len(folders), 'folder')}: {names}"
