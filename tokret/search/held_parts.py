"""The descriptors of an index in memory; of a changed index only new ones are read.

Names, folders and labels stay in the catalogue. A row is known by the digest of its
photo, so that those of parts that were merged are not read again.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.retrieval.compression import int8
from tokret.retrieval.exact_search.blocks import (
    ConcatenatedDatabase,
    Database,
    MappedDatabase,
)
from tokret.retrieval.exact_search.held import HeldDatabase
from tokret.retrieval.store.reading import REMEDY, map_descriptors
from tokret.retrieval.view_batches import decoding_threads
from tokret.search.catalogue import Catalogue
from tokret.search.catalogue_rows import ModelInfo, Part
from tokret.search.held_index import HeldIndex, HeldPart, IndexSource
from tokret.search.part_stores import open_part
from tokret.search.remote_index import fetch_parts, fetched_catalogue
from tokret.shapes import Float, Int

MOST_UNUSED = 2 / 3  # of the rows in memory; with more, all are read again


def read_index(source: IndexSource) -> HeldIndex:
    """Reads an index.

    Raises:
      UserError: there is none, it is damaged, or it has no photo with a descriptor.
    """
    found = _read(source, None)
    if not len(found.ids):
        raise UserError(f"index={source.folder} has no photo with a descriptor")
    return found


def refreshed(before: HeldIndex) -> HeldIndex:
    """Reads what is new in an index, if its catalogue has changed; else returns it.

    Raises:
      UserError: it is damaged.
    """
    source = before.source
    with fetched_catalogue(source.folder) as catalogue:
        if catalogue.changes == before.changes:
            return before
        reusable = source.hold and catalogue.model == before.model
    found = _read(source, before if reusable else None)
    unused = len(found.ids) - np.count_nonzero(found.used)
    if unused > MOST_UNUSED * len(found.ids):
        return read_index(source)
    return found


def _read(source: IndexSource, before: HeldIndex | None) -> HeldIndex:
    folder = source.folder
    while True:
        with fetched_catalogue(folder) as catalogue:
            try:
                fetch_parts(folder, catalogue)
                parts = catalogue.parts()
                known = _known_items(before, parts)
                new = _open_new(source, catalogue.model, parts, known)
                return _held(source, catalogue, before, parts, known, new)
            except UserError:
                # An update may have removed parts since the catalogue was read.
                with fetched_catalogue(folder) as now:
                    if now.changes == catalogue.changes:
                        raise


class _NewRows(NamedTuple):
    part: str
    rows: Int[np.ndarray, " m"]  # their numbers in the part
    descriptors: Database


Items = dict[str, np.ndarray]  # by part, of each row its row in memory; -1: not there


def _known_items(before: HeldIndex | None, parts: Sequence[Part]) -> Items:
    """The rows that are in memory already, also those of parts that were merged."""
    if before is None:
        return {part.name: np.full(len(part.digests), -1, np.int32) for part in parts}
    names = {part.name for part in parts}
    gone = [part for name, part in before.parts.items() if name not in names]
    items = np.concatenate([np.empty(0, np.int32), *(part.items for part in gone)])
    items = items[items >= 0]
    items = items[np.argsort(before.ids[items])]
    found: Items = {}
    for part in parts:
        if part.name in before.parts:
            found[part.name] = before.parts[part.name].items.copy()
            continue
        found[part.name] = np.full(len(part.digests), -1, np.int32)
        if len(items):
            place = np.searchsorted(before.ids[items], part.digests)
            place = place.clip(max=len(items) - 1)
            moved = before.ids[items[place]] == part.digests
            found[part.name][moved] = items[place[moved]]
    return found


def _open_new(
    source: IndexSource, model: ModelInfo, parts: Sequence[Part], known: Items
) -> list[_NewRows]:
    """Opens the parts that have rows in use that are not in memory."""

    def read(part: Part) -> _NewRows:
        rows = np.flatnonzero(part.live & (known[part.name] < 0))
        try:
            store = open_part(source.folder, model, part)
            if source.verify:
                store.verify()
        except UserError as error:
            why = str(error).removesuffix(f": {REMEDY}")
            raise _damaged(source, why, "which repairs it") from error
        descriptors: Database = store.descriptors
        if source.hold:
            descriptors = _FileRows(store.path, store.descriptors.shape)
        return _NewRows(part.name, rows, _SelectedRows(descriptors, rows))

    new = [part for part in parts if (part.live & (known[part.name] < 0)).any()]
    with ThreadPoolExecutor(decoding_threads()) as pool:
        return list(pool.map(read, new))


def _damaged(source: IndexSource, why: str, remedy: str) -> UserError:
    return UserError(
        f"index={source.folder} is damaged: {why}; index its photos again, {remedy}"
    )


class _FileRows:
    """Rows of a file that is mapped for each slice, so that no pages stay in memory."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._folder = folder
        self.shape, self.dtype = shape, np.dtype(np.float32)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Float[np.ndarray, "n d"]:
        """Some rows."""
        found = map_descriptors(self._folder, (self.shape[0], self.shape[1]))
        if found is None:
            raise UserError(f"{self._folder} changed while it was read")
        return found[rows]


class _SelectedRows:
    """Some rows of a database."""

    def __init__(self, database: Database, rows: Int[np.ndarray, " m"]) -> None:
        self._database, self._rows = database, rows
        self._is_all = len(rows) == len(database)
        self.shape, self.dtype = (len(rows), database.shape[1]), database.dtype

    def __len__(self) -> int:
        """How many rows were selected."""
        return len(self._rows)

    def __getitem__(self, rows: slice, /) -> Float[np.ndarray, "n d"]:
        """Some of them; of a whole database they are not copied."""
        selected: Any = rows if self._is_all else self._rows[rows]
        return self._database[selected]


def _held(
    source: IndexSource,
    catalogue: Catalogue,
    before: HeldIndex | None,
    parts: Sequence[Part],
    items: Items,
    new: Sequence[_NewRows],
) -> HeldIndex:
    """Adds new rows to those in memory; `items` gets their places."""
    digests = {part.name: part.digests for part in parts}
    added = [np.empty(0, np.uint64) if before is None else before.ids]
    place = len(added[0])
    for part, rows, _ in new:
        items[part][rows] = np.arange(place, place + len(rows))
        added.append(digests[part][rows])
        place += len(rows)
    used = np.zeros(place, bool)
    for each in parts:
        used[items[each.name][each.live]] = True
    return HeldIndex(
        source,
        catalogue.changes,
        catalogue.root,
        catalogue.model,
        catalogue.num_photos(),
        {name: HeldPart(digests[name], items[name]) for name in digests},
        np.concatenate(added),
        used,
        *_extended(source, before, new),
        {},
    )


def _extended(
    source: IndexSource, before: HeldIndex | None, new: Sequence[_NewRows]
) -> tuple[HeldDatabase, Float[np.ndarray, " d"] | None]:
    """Reads the new descriptors; returns the database and its scale."""
    dims = {each.descriptors.shape[1] for each in new}
    dims |= {before.database.dims} if before else set()
    if len(dims) > 1:
        why = f"its parts have {sorted(dims)} dimensions"
        raise _damaged(source, why, "with rebuild")
    scale = before.scale if before else None
    dtype = np.dtype(np.float32 if source.precision == "float32" else np.int8)
    database = before.database if before else HeldDatabase(max(dims, default=1), dtype)
    if not new:
        return database, scale
    rows: Database = ConcatenatedDatabase([each.descriptors for each in new])
    if dtype == np.int8:
        if scale is None:
            scale = int8.fit_scale(rows)
        encode = partial(int8.encode_rows, scale=scale)
        rows = MappedDatabase(rows, encode, database.dims, np.int8)
    return database.extended(rows, hold=source.hold), scale
