"""Changing a catalogue: transactions, each of what has changed alone.

A new catalogue is a draft until its first transaction is committed. That of a local
copy of an index in object storage always is: after each transaction the file is
replaced by a copy of the draft, and uploaded.
"""

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tokret.io.atomic_files import replacing, sync_folder
from tokret.io.remote.uploading import publish, withdraw
from tokret.io.remote.urls import url_of
from tokret.search import catalogue_schema as schema
from tokret.search.catalogue import FILE, Catalogue
from tokret.search.catalogue_rows import (
    NO_PART,
    Meta,
    ModelInfo,
    Part,
    PhotoEntry,
    PhotoRow,
    to_signed,
)
from tokret.shapes import Shaped

DRAFT = ".catalogue.partial"  # of the one process that has the lock


class CatalogueWriter(Catalogue):
    """A catalogue that is changed by the process that has the index's lock.

    Its methods see what is not committed yet; other processes do not.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, target: Path
    ) -> None:
        """Starts without changes; `target` is the file's name once it is committed."""
        super().__init__(path, connection)
        self._target = target
        # Rows whose photos were dropped or replaced since the last commit, by part.
        self._released: dict[int, set[int]] = {}
        self._left: set[int] = set()  # folders that photos were dropped from

    def put(self, entries: Iterable[PhotoEntry]) -> None:
        """Adds photos, or replaces those of the same path."""
        for entry in entries:
            number = self._drop(entry.name) or self._next_id("photos")
            self._insert(
                "photos",
                number,
                entry.name,
                self._folder(entry.folder),
                *entry.stamp,
                to_signed(entry.digest) if entry.digest else None,
                self._number_of(entry.part) if entry.part != NO_PART else None,
                entry.row,
                entry.error,
            )

    def drop(self, names: Iterable[str]) -> None:
        """Drops photos by their paths; unknown ones are skipped."""
        for name in names:
            self._drop(name)

    def _drop(self, name: str) -> int | None:
        """Drops a photo, and returns its number; None if there is none."""
        self._begin()
        rows = self._query("SELECT * FROM photos WHERE name = ?", (name,))
        if not rows:
            return None
        with schema.errors(self.path):
            photo = msgspec.convert(schema.checked(rows[0]), PhotoRow)
        self._query("DELETE FROM photos WHERE id = ?", (photo.id,))
        self._left.add(photo.folder)
        if photo.part is not None:
            self._released.setdefault(photo.part, set()).add(photo.row)
        return photo.id

    def add_part(self, name: str, digests: Shaped[np.ndarray, " n"]) -> None:
        """Adds a part: the digests of its rows, uint64. Photos have to follow."""
        self._begin()
        live = np.ones(len(digests), np.bool_)
        self._put_part(self._next_id("parts"), Part(name, digests, live))

    def drop_part(self, name: str) -> None:
        """Drops a part with its photos."""
        self._begin()
        number = self._number_of(name)
        self._released.pop(number, None)
        self._query("DELETE FROM photos WHERE part = ?", (number,))
        self._query("DELETE FROM parts WHERE id = ?", (number,))

    def _put_part(self, number: int, part: Part) -> None:
        digests = np.ascontiguousarray(part.digests, "<u8").tobytes()
        self._insert("parts", number, part.name, digests, part.live.tobytes())
        self._part_names[number] = part.name

    def set_engines(self, engines: Mapping[str, Any]) -> None:
        """Replaces what is recorded of the engines, by URL."""
        text = msgspec.json.encode(dict(engines)).decode()
        self._set_meta(msgspec.structs.replace(self.meta, engines=text))
        self.engines = dict(engines)

    def set_source(self, root: str, model: ModelInfo) -> None:
        """Sets the folder of the photos, and the model, where they differ."""
        if (root, model) != (self.root, self.model):
            text = msgspec.json.encode(model).decode()
            self._set_meta(msgspec.structs.replace(self.meta, root=root, model=text))
            self.root, self.model = root, model

    def _set_meta(self, meta: Meta) -> None:
        self._begin()
        self.meta = meta
        self._insert("meta", *msgspec.structs.astuple(meta))

    def _insert(self, table: str, *values: Any) -> None:
        marks = ",".join("?" * (len(values) + 1))
        row = (*values, schema.checksum(values))
        self._query(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)

    def _next_id(self, table: str) -> int:
        ((last,),) = self._query(f"SELECT max(id) FROM {table}")
        return (last or 0) + 1

    def _number_of(self, part: str) -> int:
        ((number,),) = self._query("SELECT id FROM parts WHERE name = ?", (part,))
        return int(number)

    def _folder(self, path: str) -> int:
        rows = self._query("SELECT id FROM folders WHERE path = ?", (path,))
        if rows:
            return int(rows[0][0])
        number = self._next_id("folders")
        self._insert("folders", number, path)
        return number

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._released, self._left = {}, set()
            self._query("BEGIN IMMEDIATE")

    @property
    def is_changed(self) -> bool:
        """Whether something is not committed yet."""
        return self._connection.in_transaction

    def commit(self) -> None:
        """Makes the changes durable and visible, together; uploads the file."""
        if not self.is_changed:
            return
        self._release_rows()
        for folder in self._left:
            self._query(
                "DELETE FROM folders WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM photos WHERE folder = ?)",
                (folder, folder),
            )
        changes = self.meta.changes + 1
        self._set_meta(msgspec.structs.replace(self.meta, changes=changes))
        self._query("COMMIT")
        self.changes = f"{self.meta.token}:{changes}"
        self._publish()

    def _release_rows(self) -> None:
        """Notes which rows no photo has any more; drops parts without photos."""
        for number, rows in self._released.items():
            (row,) = self._query("SELECT * FROM parts WHERE id = ?", (number,))
            _, part = self._part(row)
            live = part.live.copy()
            with schema.errors(self.path):
                for each in rows:
                    live[each] = self._is_used(number, each)
            if live.any():
                self._put_part(number, part._replace(live=live))
            else:
                self._query("DELETE FROM parts WHERE id = ?", (number,))

    def _is_used(self, part: int, row: int) -> bool:
        words = "SELECT 1 FROM photos WHERE part = ? AND row = ? LIMIT 1"
        return bool(self._query(words, (part, row)))

    def close(self) -> None:
        """Drops the changes that are not committed, and closes the file."""
        self._connection.close()

    def _publish(self) -> None:
        """Gives the file that was committed its name."""
        if self.path == self._target:
            return
        if url_of(self._target) is None:
            self._replace(self._target)
            return
        with replacing(self._target) as copy:
            shutil.copyfile(self.path, copy)
        publish(self._target)

    def _replace(self, target: Path) -> None:
        """Moves the file, whose changes are committed, to the place of another one."""
        self._connection.close()
        schema.journal_of(target).unlink(missing_ok=True)  # of a damaged file
        os.replace(self.path, target)
        sync_folder(target.parent)
        self.path = target
        self._connection = schema.open_file(target, write=True)

    @property
    def file(self) -> str:
        """The name of the file once it is committed."""
        return self._target.name

    def replace_old(self) -> None:
        """Lets this catalogue take the place of `FILE`; its changes are committed."""
        built, self._target = self._target, self._target.with_name(FILE)
        if url_of(built) is None:
            self._replace(self._target)
            return
        self._publish()
        withdraw(built)
        built.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(
    index: Path, root: str, file: str, model: ModelInfo, is_new: bool = False
) -> Iterator[CatalogueWriter]:
    """Opens a catalogue to change it, or starts one; the index's lock must be held.

    Changes that are not committed at the end are dropped.

    Args:
      index: the index's folder.
      root: the folder of the photos.
      file: the name of the catalogue.
      model: of the descriptors.
      is_new: whether to start one without photos; one of that name is replaced by the
        first transaction.

    Raises:
      UserError: it is damaged, or cannot be written.
    """
    target, draft = index / file, index / DRAFT
    path = target
    schema.remove(draft)
    if is_new:
        path = draft
        _start(path, root, model)
    elif url_of(index) is not None:
        path = draft
        shutil.copyfile(target, draft)
    connection = schema.open_file(path, write=True)
    try:
        writer = CatalogueWriter(path, connection, target)
        with contextlib.closing(writer):
            writer.set_source(root, model)
            yield writer
    finally:
        connection.close()
        schema.remove(draft)


def _start(path: Path, root: str, model: ModelInfo) -> None:
    schema.create(path)
    text = msgspec.json.encode(model).decode()
    values = (1, root, text, "{}", secrets.token_hex(8), 0)
    with schema.errors(path):
        connection = schema.open_file(path, write=True)
        with contextlib.closing(connection):
            connection.execute(
                "INSERT INTO meta VALUES (?,?,?,?,?,?,?)",
                (*values, schema.checksum(values)),
            )
