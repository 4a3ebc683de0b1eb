"""The parts of an index, read into memory; what has changed is read again, no more."""

import dataclasses
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
from tokret.search.catalogue import PARTS, Catalogue, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, Part, PhotoEntry
from tokret.search.part_stores import open_part
from tokret.search.photo_table import Filters, PhotoTable, Segment, folder_of
from tokret.search.remote_index import fetch_parts, fetched_catalogue
from tokret.shapes import Bool, Float, Int, Shaped

Precision = Literal["float32", "int8"]
Rows = Mapping[int, Sequence[str]]  # of a part's rows in use, the paths of the photos


@dataclasses.dataclass(frozen=True)
class HeldIndex:
    """An index as it was at some time; a later one has the same blocks."""

    folder: Path
    changes: str  # of its catalogue
    root: str  # the folder of its photos
    model: ModelInfo
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
        with fetched_catalogue(folder) as catalogue:
            try:
                fetch_parts(folder, catalogue)
                with catalogue.snapshot():
                    parts = _read_parts(folder, catalogue)
                if not parts:
                    raise UserError(f"index={folder} has no photo with a descriptor")
                return _held(folder, catalogue, parts, precision, hold)
            except UserError:
                # An update may have removed parts since the catalogue was read.
                with fetched_catalogue(folder) as now:
                    if now.changes == catalogue.changes:
                        raise


class _Part(NamedTuple):
    name: str
    rows: Database
    ids: Shaped[np.ndarray, " n"]
    paths: Sequence[Sequence[str]]  # of each row


def _read_parts(folder: Path, catalogue: Catalogue) -> list[_Part]:
    """Opens parts, and compares the catalogue with them."""

    def read(part: Part) -> _Part:
        try:
            store = open_part(folder, catalogue.model, part)
            store.verify()
            paths = _paths(folder, part, catalogue.photos_in(part.name))
        except UserError as error:
            raise UserError(
                f"index={folder} is damaged: {str(error).removesuffix(f': {REMEDY}')}; "
                "index its photos again, which repairs it"
            ) from error
        rows = np.array(list(paths), np.int64)
        descriptors: Database = store.descriptors
        if len(rows) < len(store.descriptors):
            descriptors = SelectedRows(store.descriptors, rows)
        return _Part(part.name, descriptors, part.digests[rows], [*paths.values()])

    with ThreadPoolExecutor(decoding_threads()) as pool:
        return list(pool.map(read, catalogue.parts()))


def _paths(folder: Path, part: Part, photos: Sequence[PhotoEntry]) -> Rows:
    """The paths of each row in use, in the order of the rows."""
    where, paths = folder / PARTS / part.name, dict[int, list[str]]()
    for entry in photos:
        if not part.has(entry):
            raise UserError(f"{where}: row {entry.row} is not of {entry.name}")
        paths.setdefault(entry.row, []).append(entry.name)
    for row in np.flatnonzero(part.live).tolist():
        if row not in paths:
            raise UserError(f"{where}: row {row} is not of any photo")
    return paths


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
    return HeldIndex(
        folder,
        catalogue.changes,
        catalogue.root,
        catalogue.model,
        database,
        scale,
        table,
    )


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
    with open_catalogue(before.folder) as catalogue:
        if catalogue.changes == before.changes:
            return before
    return read_index(before.folder, precision, hold)
