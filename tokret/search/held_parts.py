"""The parts of an index, read into memory; what has changed is read again, no more."""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.retrieval.compression import int8
from tokret.retrieval.exact_search.blocks import (
    ConcatenatedDatabase,
    Database,
    MappedDatabase,
)
from tokret.retrieval.exact_search.held import HeldDatabase
from tokret.retrieval.exact_search.top_k import Lists
from tokret.retrieval.store.reading import REMEDY
from tokret.retrieval.view_batches import decoding_threads
from tokret.search.catalogue import FILE, PARTS, Catalogue
from tokret.search.part_stores import open_part
from tokret.search.photo_table import Filters, PhotoTable, Segment, folder_of
from tokret.search.remote_index import fetch_catalogue, fetch_parts
from tokret.shapes import Bool, Float, Int, Shaped

Precision = Literal["float32", "int8"]
Rows = Mapping[int, Sequence[str]]  # of a part's rows in use, the paths of the photos


@dataclasses.dataclass(frozen=True)
class HeldIndex:
    """An index as it was at some time; a later one has the same blocks."""

    folder: Path
    stamp: tuple[int, ...]  # of the catalogue's file
    catalogue: Catalogue
    database: HeldDatabase
    scale: Float[np.ndarray, " d"] | None  # of int8 descriptors; None for float32
    table: PhotoTable

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        k: int,
        chosen: Bool[np.ndarray, " n"] | None,
    ) -> Lists:
        """As `HeldDatabase.search`, with cosines for scores."""
        if self.scale is None:
            return self.database.search(queries, k, chosen)
        codes = int8.encode_queries(queries, self.scale)
        scores, items = self.database.search(codes, k, chosen)
        return scores * int8.query_units(queries, self.scale), items

    def chosen(
        self, filters: Filters, leave_out: Collection[str] = ()
    ) -> Bool[np.ndarray, " n"] | None:
        """The rows to search; None for all."""
        rows = self.table.matching(filters) if filters else self.table.used
        if excluded := self.table.items(leave_out):
            rows = rows.copy()
            rows[excluded] = False
        return None if rows.all() else rows

    def descriptors(self, ids: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The descriptors of photos of the index; approximate ones of int8.

        Raises:
          UserError: one is not in the index.
        """
        items = np.zeros(len(ids), np.int32)
        for place, photo_id in enumerate(ids):
            found = self.table.items([photo_id])
            if not found:
                raise UserError(f"photo {photo_id[:40]!r} is not in the index")
            items[place] = found[0]
        rows = self.database.take(items)
        if self.scale is None:
            return rows
        wide = rows * self.scale
        return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def read_index(folder: Path, precision: Precision, hold: bool = True) -> HeldIndex:
    """Reads an index; without `hold` its descriptors stay in their files.

    Raises:
      UserError: there is none, or it is damaged.
    """
    while True:
        stamp, catalogue = _stamp(folder), fetch_catalogue(folder)
        try:
            fetch_parts(folder, catalogue)
            parts = _read_parts(folder, catalogue, catalogue.live_rows())
            if not parts:
                raise UserError(f"index={folder} has no photo with a descriptor")
            return _held(folder, stamp, catalogue, parts, precision, hold)
        except UserError:
            # An update may have removed parts since the catalogue was read.
            if fetch_catalogue(folder) == catalogue:
                raise


class _Part(NamedTuple):
    name: str
    rows: Database
    ids: Shaped[np.ndarray, " n"]
    paths: Sequence[Sequence[str]]  # of each row


def _read_parts(
    folder: Path, catalogue: Catalogue, live: Mapping[str, Rows]
) -> list[_Part]:
    """Opens parts, and compares the catalogue with them."""

    def read(name: str) -> _Part:
        rows = dict(sorted(live[name].items()))
        try:
            store = open_part(folder / PARTS / name, catalogue, rows)
        except UserError as error:
            raise UserError(
                f"index={folder} is damaged: {str(error).removesuffix(f': {REMEDY}')}; "
                "index its photos again, which repairs it"
            ) from error
        digests = [int(store.record.images.digests[row], 16) for row in rows]
        descriptors: Database = store.descriptors
        if len(rows) < len(store.descriptors):
            descriptors = SelectedRows(store.descriptors, np.array(list(rows)))
        return _Part(name, descriptors, np.array(digests, np.uint64), [*rows.values()])

    with ThreadPoolExecutor(decoding_threads()) as pool:
        return list(pool.map(read, sorted(live)))


class SelectedRows:
    """Some rows of a database."""

    def __init__(
        self, database: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " m"]
    ) -> None:
        """Selects rows, in this order."""
        self._database, self._rows = database, rows
        self.shape, self.dtype = (len(rows), database.shape[1]), database.dtype

    def __len__(self) -> int:
        """How many rows were selected."""
        return len(self._rows)

    def __getitem__(self, rows: slice, /) -> Float[np.ndarray, "n d"]:
        """Copies some of them."""
        return self._database[self._rows[rows]]


def _held(
    folder: Path,
    stamp: tuple[int, ...],
    catalogue: Catalogue,
    parts: Sequence[_Part],
    precision: Precision,
    hold: bool,
) -> HeldIndex:
    dims = {part.rows.shape[1] for part in parts}
    if len(dims) > 1:
        raise UserError(
            f"index={folder} is damaged: its parts have {sorted(dims)} dimensions; "
            "index its photos again with rebuild"
        )
    everything = ConcatenatedDatabase([part.rows for part in parts])
    scale = int8.fit_scale(everything) if precision == "int8" else None
    dtype = np.dtype(np.float32 if scale is None else np.int8)
    database = HeldDatabase(dims.pop(), dtype)
    database = database.extended(_encoded(everything, scale), hold=hold)
    folders: dict[str, int] = {}
    segments, first = {}, 0
    for part in parts:
        items = np.arange(first, first + len(part.rows), dtype=np.int32)
        segments[part.name] = _segment(part, items, folders)
        first += len(items)
    table = PhotoTable(segments, tuple(folders), first)
    return HeldIndex(folder, stamp, catalogue, database, scale, table)


def _encoded(rows: Database, scale: Float[np.ndarray, " d"] | None) -> Database:
    if scale is None:
        return rows
    encode = partial(int8.encode_rows, scale=scale)
    return MappedDatabase(rows, encode, rows.shape[1], np.int8)


def _segment(
    part: _Part, items: Int[np.ndarray, " n"], folders: dict[str, int]
) -> Segment:
    """The photos of a part; new folders get the next numbers."""
    order = np.argsort(part.ids)
    names = [part.paths[row] for row in order.tolist()]
    paths = [path for some in names for path in some]
    starts = np.cumsum([0, *map(len, names)])
    numbers = [folders.setdefault(folder_of(path), len(folders)) for path in paths]
    return Segment(
        part.name, part.ids[order], items[order], paths, starts, np.array(numbers)
    )


def refreshed(before: HeldIndex, precision: Precision, hold: bool) -> HeldIndex:
    """Reads an index again if its catalogue has changed; of new parts only the rest.

    Raises:
      UserError: it is damaged.
    """
    stamp = _stamp(before.folder)
    if stamp == before.stamp:
        return before
    return read_index(before.folder, precision, hold)


def _stamp(folder: Path) -> tuple[int, ...]:
    """What changes whenever the catalogue is written."""
    try:
        found = os.stat(folder / FILE)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
