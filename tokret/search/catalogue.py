"""The catalogue of an index: the model of its descriptors, and a row for each photo.

Descriptors are in parts, stores below INDEX/parts. A photo has the row of the file with
its content, whatever its name was when the descriptor was extracted. `catalogue.sqlite`
is changed by transactions, each after what it refers to is on the disk, so that it is
true whenever the process ends. Opening it costs O(parts), not O(photos).
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tokret.data import folders
from tokret.errors import UserError
from tokret.search import catalogue_schema
from tokret.search.catalogue_rows import (
    NO_PART,
    Meta,
    ModelInfo,
    Natural,
    Part,
    PartRow,
    PhotoEntry,
    PhotoRow,
    check_name,
    check_photos,
    check_root,
    to_signed,
    to_text,
)
from tokret.search.catalogue_schema import REMEDY, checked
from tokret.search.photos import Stamp
from tokret.shapes import Int

FILE, PARTS, WEIGHTS = folders.CATALOGUE, folders.PARTS, "weights"
FROM_CHECKPOINT = f"{REMEDY} and a checkpoint"  # where the copy of the weights is lost
LOCK = ".lock"
AT_ONCE = 4096  # rows that are read together
_IN = 500  # values of an SQL expression


class Catalogue:
    """An open catalogue; `open_catalogue` gives one.

    Every method raises a UserError if what it reads is damaged. Each of them sees the
    catalogue as it is then, not as it was when it was opened; `snapshot` differs.
    """

    root: str  # the folder of its photos
    model: ModelInfo  # of the descriptors
    engines: dict[str, Any]  # by URL, what an engine records about itself
    changes: str  # another one after each update, also after a rebuild

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Reads what is true of the whole index."""
        self.path, self._connection = path, connection
        self._part_names: dict[int, str] = {}
        with catalogue_schema.errors(path):
            (row,) = self._query("SELECT * FROM meta LIMIT 2")
            self.meta = msgspec.convert(checked(row), Meta)
            check_root(self.meta.root)
            self.root = self.meta.root
            self.model = msgspec.json.decode(self.meta.model, type=ModelInfo)
            engines = msgspec.json.decode(self.meta.engines, type=dict[str, Any])
            self.engines = engines
        self.changes = f"{self.meta.token}:{self.meta.changes}"

    def _query(self, words: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # All at once: a statement that is not at its end keeps writers waiting.
        with catalogue_schema.errors(self.path):
            return self._connection.execute(words, values).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Lets several calls see one state; updates wait for the end of it."""
        if self._connection.in_transaction:
            yield
            return
        self._query("BEGIN")
        self._part_names.clear()  # numbers of parts may be used again
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._query("COMMIT")

    def parts(self) -> list[Part]:
        """The parts in order, that of their making.

        The place of a row among all rows is that in its part plus the lengths of the
        parts before it.
        """
        found = [self._part(row) for row in self._query("SELECT * FROM parts")]
        return [part for _, part in sorted(found, key=lambda each: each[0])]

    def _part(self, row: tuple[Any, ...]) -> tuple[int, Part]:
        with catalogue_schema.errors(self.path):
            part = msgspec.convert(checked(row), PartRow)
        digests = np.frombuffer(part.digests, "<u8").astype(np.uint64)
        live = np.frombuffer(part.live, np.bool_)
        return part.id, Part(part.name, digests, live)

    def _name_of_part(self, number: int | None) -> str:
        if number is None:
            return NO_PART
        if number not in self._part_names:
            rows = self._query("SELECT * FROM parts WHERE id = ?", (number,))
            with catalogue_schema.errors(self.path):
                if not rows:
                    raise ValueError("a photo is in a part that is missing")
            self._part_names[number] = self._part(rows[0])[1].name
        return self._part_names[number]

    def _photos(self, where: str, values: Sequence[Any] = ()) -> list[PhotoEntry]:
        with self.snapshot():
            rows = self._query(f"SELECT * FROM photos {where}", values)
            with catalogue_schema.errors(self.path):
                photos = msgspec.convert([checked(row) for row in rows], list[PhotoRow])
                check_photos(photos)
            return [
                PhotoEntry(
                    photo.name,
                    Stamp(photo.size, photo.modified),
                    photo.error,
                    "" if photo.digest is None else to_text(photo.digest),
                    self._name_of_part(photo.part),
                    photo.row,
                )
                for photo in photos
            ]

    def photo(self, name: str) -> PhotoEntry | None:
        """The entry of a photo by its path from the root; None if there is none."""
        found = self.photos([name])
        return found[0] if found else None

    def photos(self, names: Iterable[str]) -> list[PhotoEntry]:
        """The entries of photos by their paths from the root; unknown are skipped."""
        return self._of_all("name", [*names])

    def photos_with(self, digests: Iterable[str]) -> dict[str, list[PhotoEntry]]:
        """The photos of each digest, by path; digests without a photo have none.

        Photos without a descriptor are not among them.
        """
        photos: dict[str, list[PhotoEntry]] = {}
        for entry in sorted(self.known(digests)):
            if entry.part != NO_PART:
                photos.setdefault(entry.digest, []).append(entry)
        return photos

    def known(self, digests: Iterable[str]) -> list[PhotoEntry]:
        """The entries of some digests, also of photos that were removed."""
        return self._of_all("digest", [to_signed(digest) for digest in digests])

    def copied(self) -> list[str]:
        """The digests that several photos with a descriptor have."""
        found = self._query(
            "SELECT digest FROM photos WHERE part IS NOT NULL GROUP BY digest "
            "HAVING count(*) > 1"
        )
        return [to_text(digest) for (digest,) in found]

    def known_sizes(self, sizes: Iterable[int]) -> set[int]:
        """Those of some sizes in bytes that a file with a digest has."""
        found: set[int] = set()
        chosen = [*{*sizes}]
        for start in range(0, len(chosen), _IN):
            some = chosen[start : start + _IN]
            found |= {
                size
                for (size,) in self._query(
                    f"SELECT DISTINCT size FROM photos WHERE size IN ({_marks(some)})"
                    " AND digest IS NOT NULL",
                    some,
                )
            }
        return found

    def removed(self) -> list[PhotoEntry]:
        """The photos that were removed from the index, but are in their folder."""
        return sorted(self._photos("WHERE part IS NULL AND digest IS NOT NULL"))

    def photos_in(self, part: str) -> list[PhotoEntry]:
        """The photos of a part, in the order of its rows."""
        return self._photos(
            "WHERE part = (SELECT id FROM parts WHERE name = ?) ORDER BY row", (part,)
        )

    def _of_all(self, column: str, values: Sequence[Any]) -> list[PhotoEntry]:
        found: list[PhotoEntry] = []
        for start in range(0, len(values), _IN):
            some = values[start : start + _IN]
            found += self._photos(f"WHERE {column} IN ({_marks(some)})", some)
        return found

    def entries(self, after: str = "") -> Iterator[PhotoEntry]:
        """Yields all photos in the order of their paths, from behind one of them."""
        while some := self._photos(
            f"WHERE name > ? ORDER BY name LIMIT {AT_ONCE}", (after,)
        ):
            names = [after, *(entry.name for entry in some)]
            with catalogue_schema.errors(self.path):
                if any(first >= second for first, second in itertools.pairwise(names)):
                    raise ValueError("photos are not in order")
            yield from some
            after = names[-1]

    def num_photos(
        self, folders: Sequence[str] = (), labels: Sequence[str] = ()
    ) -> int:
        """How many photos have a descriptor, of those as of `rows_of`."""
        return self._count(self._condition(folders, labels))

    def _condition(self, folders: Sequence[str], labels: Sequence[str]) -> str:
        """Of photos with a descriptor, as of `rows_of`."""
        where = "part IS NOT NULL"
        if folders or labels:
            numbers = ",".join(map(str, self._chosen(folders, labels)))
            where += f" AND folder IN ({numbers})"
        return where

    def has_photos(self) -> bool:
        """Whether any photo has a descriptor."""
        return bool(self._query("SELECT 1 FROM photos WHERE part IS NOT NULL LIMIT 1"))

    def num_removed(self) -> int:
        """How many photos were removed from the index, but are in their folder."""
        return self._count("part IS NULL AND digest IS NOT NULL")

    def _count(self, condition: str) -> int:
        ((count,),) = self._query(f"SELECT count(*) FROM photos WHERE {condition}")
        return int(count)

    def errors(self) -> dict[str, str]:
        """By photo, why it has no descriptor."""
        found = self._photos("WHERE part IS NULL AND digest IS NULL")
        return {entry.name: entry.error for entry in sorted(found)}

    def folders(self) -> dict[str, int]:
        """How many photos with a descriptor are in each folder and below it, by path.

        Photos directly in the root are in none.
        """
        counts: dict[str, int] = {}
        for path, count in self._photos_by_folder():
            while path:
                counts[path] = counts.get(path, 0) + count
                path = path.rpartition("/")[0]
        return dict(sorted(counts.items()))

    def labels(self) -> dict[str, int]:
        """How many photos with a descriptor have each label, which "" is too."""
        counts: dict[str, int] = {}
        for path, count in self._photos_by_folder():
            label = path.rpartition("/")[2]
            counts[label] = counts.get(label, 0) + count
        return dict(sorted(counts.items()))

    def _photos_by_folder(self) -> list[tuple[str, int]]:
        with self.snapshot():
            paths = self._folder_paths()
            found = self._query(
                "SELECT folder, count(*) FROM photos WHERE part IS NOT NULL "
                "GROUP BY folder"
            )
        with catalogue_schema.errors(self.path):
            return [(paths[folder], count) for folder, count in found]

    def _folder_paths(self) -> dict[int, str]:
        with catalogue_schema.errors(self.path):
            rows = [checked(row) for row in self._query("SELECT * FROM folders")]
            found = msgspec.convert(rows, list[tuple[Natural, str]])
            for _, path in found:
                check_name(path or "root")
            return dict(found)

    def rows_of(
        self, folders: Iterable[str] = (), labels: Iterable[str] = ()
    ) -> dict[str, Int[np.ndarray, " k"]]:
        """The rows of photos in any of some folders and with any of some labels.

        Args:
          folders: paths from the root, each with everything below it; none: all.
          labels: names of folders; "" are photos directly in the root; none: all.

        Returns:
          By part, the rows in ascending order; parts without any are not there. The
          rows of the answer are compared with their checksums once they are read.
        """
        rows: dict[str, list[int]] = {}
        for folder in self._chosen(folders, labels):
            for part, row in self._query(
                "SELECT part, row FROM photos WHERE folder = ? AND part IS NOT NULL",
                (folder,),
            ):
                rows.setdefault(self._name_of_part(part), []).append(row)
        return {part: np.unique(np.array(each)) for part, each in rows.items()}

    def _chosen(self, folders: Iterable[str], labels: Iterable[str]) -> list[int]:
        """The numbers of folders, as `rows_of` chooses photos."""
        above, names = {*folders}, {*labels}
        return [
            number
            for number, path in self._folder_paths().items()
            if (not above or _is_below(path, above))
            and (not names or path.rpartition("/")[2] in names)
        ]

    def browse(
        self, folders: Sequence[str], labels: Sequence[str], offset: int, top: int
    ) -> tuple[list[PhotoEntry], int]:
        """Some of the photos as of `rows_of`, by path, and how many there are."""
        where, page = self._condition(folders, labels), (top, offset)
        found = self._photos(f"WHERE {where} ORDER BY name LIMIT ? OFFSET ?", page)
        return found, self._count(where)

    def check(self) -> None:
        """Compares the structure of the whole file, in O(photos).

        Raises:
          UserError: it is damaged.
        """
        ((found,),) = self._query("PRAGMA integrity_check(1)")
        with catalogue_schema.errors(self.path):
            if found != "ok":
                raise ValueError(f"{found}")


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _is_below(path: str, folders: set[str]) -> bool:
    while path and path not in folders:
        path = path.rpartition("/")[0]
    return path in folders


@contextlib.contextmanager
def open_catalogue(folder: Path, file: str = FILE) -> Iterator[Catalogue]:
    """Opens the catalogue of an index for reading.

    It is to be opened for each use: that takes less than a millisecond, and an update
    may replace the file.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / file
    if not path.exists():
        unfinished = (folder / WEIGHTS).is_dir() and (folder / LOCK).exists()
        raise UserError(
            f"index={folder} has no complete part yet; wait, or index its photos again"
            if unfinished
            else f"index={folder} is not an index; create one of your photos first"
        )
    with contextlib.closing(catalogue_schema.open_file(path)) as connection:
        yield Catalogue(path, connection)
