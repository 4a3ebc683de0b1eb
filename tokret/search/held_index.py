"""An index in memory: its descriptors, and which of its rows a search takes."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.retrieval.compression import int8
from tokret.retrieval.exact_search.held import HeldDatabase
from tokret.retrieval.exact_search.top_k import Lists
from tokret.search.catalogue import PARTS, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, PhotoEntry
from tokret.search.filters import Filters
from tokret.shapes import Bool, Float, Int, Shaped

Precision = Literal["float32", "int8"]
FILTERS = 16  # whose rows are kept


class IndexSource(NamedTuple):
    """Where an index is, and how it is kept in memory."""

    folder: Path
    precision: Precision = "float32"
    hold: bool = True  # else descriptors stay in their files
    verify: bool = True  # whether the checksums of all descriptors are compared


class HeldPart(NamedTuple):
    """A part of an index."""

    digests: Shaped[np.ndarray, " n"]  # of its rows, uint64
    items: Int[np.ndarray, " n"]  # of each, its row in memory; -1 if not there


@dataclasses.dataclass(frozen=True)
class HeldIndex:
    """An index as it was at some time; a later one has the same blocks."""

    source: IndexSource
    changes: str  # of its catalogue
    root: str  # the folder of its photos
    model: ModelInfo
    num_photos: int  # with a descriptor, copies counted
    parts: Mapping[str, HeldPart]
    ids: Shaped[np.ndarray, " n"]  # of each row in memory, its digest as uint64
    used: Bool[np.ndarray, " n"]  # which rows the photos of the index have
    database: HeldDatabase
    scale: Float[np.ndarray, " d"] | None  # of int8 descriptors; None for float32
    _matching: dict[Filters, Bool[np.ndarray, " n"]]  # they recur from page to page

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
        rows = self.matching(filters) if filters else self.used
        if leave_out:
            rows = rows & ~np.isin(self.ids, to_numbers(leave_out))
        return None if rows.all() else rows

    def matching(self, filters: Filters) -> Bool[np.ndarray, " n"]:
        """The rows of photos that filters accept."""
        found = self._matching.get(filters)
        if found is None:
            found = np.zeros(len(self.ids), bool)
            with open_catalogue(self.source.folder) as catalogue:
                rows_of = catalogue.rows_of(filters.folders, filters.labels)
            for name, rows in rows_of.items():
                part = self.parts.get(name)  # None if it is newer
                if part is not None:
                    items = part.items[rows[rows < len(part.items)]]
                    found[items[items >= 0]] = True
            found &= self.used
            if len(self._matching) >= FILTERS:
                self._matching.clear()
            self._matching[filters] = found
        return found

    def descriptors(self, photo_ids: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The descriptors of photos of the index; approximate ones of int8.

        Raises:
          UserError: one is not in the index.
        """
        items = self.items_of(photo_ids)
        if (items < 0).any():
            missing = photo_ids[int(np.argmin(items))]
            raise UserError(f"photo {missing} is not in the index")
        return self.decoded(self.database.take(items))

    def items_of(self, photo_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
        """The rows of photos in memory; -1 for those that are not in the index."""
        numbers, inverse = np.unique(to_numbers(photo_ids), return_inverse=True)
        items = np.full(len(numbers), -1, np.int32)
        if len(numbers):
            place = np.searchsorted(numbers, self.ids).clip(max=len(numbers) - 1)
            # Of several rows of a content the first is the last that is assigned.
            found = np.flatnonzero((numbers[place] == self.ids) & self.used)[::-1]
            items[place[found]] = found
        return items[inverse]

    def check_places(self, photos: Mapping[str, Sequence[PhotoEntry]]) -> None:
        """Raises a UserError if the catalogue has photos in rows of other photos."""
        for entry in (entry for entries in photos.values() for entry in entries):
            part, row = self.parts.get(entry.part), entry.row
            digests = part.digests if part else ()
            if row >= len(digests) or digests[row] != int(entry.digest, 16):
                folder = self.source.folder
                raise UserError(
                    f"index={folder} is damaged: {folder / PARTS / entry.part}: row "
                    f"{row} is not of {entry.name}; index its photos again, which "
                    "repairs it"
                )

    def decoded(self, rows: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Rows of the database as float32."""
        if self.scale is None:
            return rows
        wide = rows * self.scale
        return wide / np.linalg.norm(wide, axis=1, keepdims=True)


class Tiles:
    """The descriptors of the rows in use, some at a time."""

    def __init__(self, held: HeldIndex, rows: int = 2048) -> None:
        """Iterates over an index, by at most so many rows."""
        self._held, self._rows = held, rows

    def __iter__(self) -> Iterator[Float[np.ndarray, "t d"]]:
        """Yields them in the order of the rows; float32 ones are not copied."""
        for block in self._held.database.blocks:
            rows = np.asarray(block.load())[: block.count]
            used = self._held.used[block.first : block.first + block.count]
            for start in range(0, block.count, self._rows):
                chosen = used[start : start + self._rows]
                some = rows[start : start + self._rows]
                if chosen.any():
                    yield self._held.decoded(some if chosen.all() else some[chosen])


def to_numbers(photo_ids: Collection[str]) -> Shaped[np.ndarray, " n"]:
    """Ids of photos as uint64.

    Raises:
      UserError: one is not 16 hexadecimal digits.
    """
    try:
        return np.array([int(each, 16) for each in photo_ids], np.uint64)
    except (ValueError, OverflowError) as error:
        raise UserError("the id of a photo is 16 hexadecimal digits") from error
