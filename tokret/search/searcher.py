"""An index that is held open for many queries: its model, its descriptors, its photos.

All that a search needs is in one `HeldIndex`, which is replaced as a whole: searches in
other threads continue with the one that they started with.
"""

import dataclasses
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.arguments import within
from tokret.data.views import View
from tokret.errors import UserError
from tokret.retrieval.extraction import extract
from tokret.search.catalogue import FROM_CHECKPOINT, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, to_text
from tokret.search.engines.opening import EXACT
from tokret.search.engines.recording import chosen_engine
from tokret.search.engines.searching import EngineSearch, open_search
from tokret.search.extractor import Extractor, restore_copy
from tokret.search.filters import Filters
from tokret.search.held_index import HeldIndex, IndexSource, Precision, Tiles
from tokret.search.held_parts import read_index, refreshed
from tokret.search.hits import Hit as Hit
from tokret.search.hits import first_hits
from tokret.search.index_changes import Added, add_files, remove_photos
from tokret.search.remote_index import fetched_catalogue
from tokret.shapes import Bool, Float, Int, Shaped


class PhotoInfo(NamedTuple):
    """A photo of the index; copies of a file are one photo with several names."""

    id: str
    names: tuple[str, ...]  # paths from the root
    label: str  # of the first


class Searcher:
    """An index that is held open.

    `search`, `embed` and the others may be called from several threads.
    """

    def __init__(
        self,
        index: Path,
        load: Callable[[str], Extractor],
        *,
        root: Path | None = None,
        engine: str = "",
        precision: Precision = "float32",
        hold: bool = True,
    ) -> None:
        """Reads an index.

        Args:
          index: its folder.
          load: restores the model, given the name of the index's own copy of it.
          root: the folder where the photos are now; None: where they were indexed.
          engine: which searches: its URL, exact, or "" for the one that the index was
            copied to last. With an engine the descriptors stay in their files.
          precision: of the descriptors in memory. With int8 they take a quarter, and
            scores are approximate, to about 0.01.
          hold: whether the descriptors are read into memory, for many queries; else
            each search reads their files.

        Raises:
          UserError: there is no index, or it is damaged.
        """
        self.index, self._load, self._root = index, load, root
        self._updating = threading.Lock()
        self._extractor: Extractor | None = None
        with fetched_catalogue(index) as catalogue:
            self._engine = chosen_engine(catalogue, engine)
        self._by_engine: EngineSearch | None = None
        if self._engine is None:
            self._state = read_index(IndexSource(index, precision, hold))
        else:
            # The checksums would read all descriptors; updates compare them.
            source = IndexSource(index, hold=False, verify=False)
            self._state = read_index(source)
            self._by_engine = open_search(self._state, self._engine)

    @property
    def root(self) -> Path:
        """The folder that names are relative to."""
        return self._root or Path(self._state.root)

    @property
    def num_photos(self) -> int:
        """How many photos have descriptors, copies counted."""
        others = self._by_engine.num_others if self._by_engine else 0
        return self._state.num_photos + others

    def num_searched(self, filters: Filters) -> int:
        """How many photos filters accept, copies counted; of other indexes all."""
        others = self._by_engine.num_others if self._by_engine else 0
        if not filters:
            return self.num_photos
        with open_catalogue(self.index) as catalogue:
            return catalogue.num_photos(filters.folders, filters.labels) + others

    @property
    def engine(self) -> str:
        """The URL of the engine that searches, or exact."""
        return self._engine.url if self._engine else EXACT

    @property
    def num_contents(self) -> int:
        """How many photos have descriptors; copies are one."""
        return int(np.count_nonzero(self._state.used))

    @property
    def model(self) -> ModelInfo:
        """The model of the descriptors."""
        return self._state.model

    @property
    def extractor(self) -> Extractor:
        """The model, restored at the first use.

        Raises:
          UserError: the index's copy of it is damaged.
        """
        while True:
            model, extractor = self.model, self._extractor
            if extractor is not None and not extractor.model.difference(model):
                return extractor
            try:
                self._extractor = restore_copy(self.index, model, self._load)
            except UserError:
                # An update may have replaced it since the catalogue was read.
                if not self.refresh():
                    raise

    def embed(self, views: Sequence[View]) -> Float[np.ndarray, "n d"]:
        """Extracts the descriptors of queries, float32, L2-normalised.

        Raises:
          UserError: a photo cannot be read.
        """
        system = self.extractor.system
        # Each alone: its descriptor does not depend on the others.
        settings = dataclasses.replace(system.settings, batch_size=1)
        found = np.concatenate(
            [
                extract(system.embed, system.variables, [view], settings)
                for view in views
            ]
        ).astype(np.float32)
        dims = self._state.database.dims
        if found.shape[1] != dims:
            raise UserError(
                f"index={self.index} has descriptors of [{dims}] dimensions, not "
                f"{found.shape[1]}; {FROM_CHECKPOINT}"
            )
        return found

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        top: int,
        filters: Filters = Filters(),  # noqa: B008 (frozen)
        leave_out: Collection[str] = (),
    ) -> list[list[Hit]]:
        """Retrieves the photos most similar to each query; ties by name.

        Scores are exact, but of photos in other indexes; an engine may miss photos.

        Args:
          queries: descriptors of length 1.
          top: how many photos of each, at most.
          filters: which photos to search.
          leave_out: ids of photos that are not to be found.

        Returns:
          Of each query its hits, the best first.
        """
        within("top", top, 1)
        by_engine = self._by_engine
        if by_engine is None:
            chosen = self._state.chosen(filters, leave_out)
            return self._search_rows(self._state, queries, top, filters, chosen)

        found = []
        for query in queries[:, None]:
            search = partial(self._search_rows, by_engine.state, query, top, filters)
            found.append(by_engine.search(search, query, top, filters, leave_out))
        return found

    def _search_rows(
        self,
        state: HeldIndex,
        queries: Float[np.ndarray, "q d"],
        top: int,
        filters: Filters,
        chosen: Bool[np.ndarray, " n"] | None,
    ) -> list[list[Hit]]:
        """Searches some rows of the index, or all, exactly."""
        rows = min(top, len(state.ids))
        while True:
            # One more row shows whether others have the score of the last.
            scores, items = state.search(queries, rows + 1, chosen)
            tied = (scores[:, rows] == scores[:, rows - 1]) & (items[:, rows] >= 0)
            if not tied.any() or rows >= len(state.ids):
                break
            rows = min(2 * rows, len(state.ids))
        return self._hits(state, scores, items, top, filters)

    def _hits(
        self,
        state: HeldIndex,
        scores: Float[np.ndarray, "q k"],
        items: Int[np.ndarray, "q k"],
        top: int,
        filters: Filters,
    ) -> list[list[Hit]]:
        """The photos of rows, by their names in the catalogue."""
        wanted = state.ids[np.unique(items[items >= 0])].tolist()
        with open_catalogue(self.index) as catalogue:
            photos = catalogue.photos_with(map(to_text, wanted))
            if catalogue.changes == state.changes:
                state.check_places(photos)
        found = []
        for row, places in zip(scores.tolist(), items, strict=True):
            ids = map(to_text, state.ids[places[places >= 0]].tolist())
            hits = [
                Hit(entry.name, score, entry.digest, entry.label)
                for score, photo_id in zip(row, ids, strict=False)
                for entry in photos.get(photo_id, ())
                if not filters or filters.accepts(entry.folder)
            ]
            found.append(first_hits(hits, top))
        return found

    def descriptors(self, ids: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The descriptors of photos of the index.

        Raises:
          UserError: one is not in the index.
        """
        return self._state.descriptors(ids)

    def known_descriptors(
        self, ids: Sequence[str]
    ) -> dict[str, Float[np.ndarray, " d"]]:
        """As `descriptors`, by id; without those of photos in other indexes."""
        state = self._state
        items = state.items_of(ids).tolist()
        known = [each for each, item in zip(ids, items, strict=True) if item >= 0]
        return dict(zip(known, state.descriptors(known), strict=True)) if known else {}

    def has_photos(self, filters: Filters) -> bool:
        """Whether filters accept any photo."""
        return bool(self._state.matching(filters).any())

    def tiles(self) -> Tiles:
        """The descriptors of all photos, in arrays [t, D] of some thousands of rows."""
        return Tiles(self._state)

    def used_ids(self) -> Shaped[np.ndarray, " n"]:
        """The ids of the rows of `tiles`, as uint64."""
        return self._state.ids[self._state.used]

    def photo(self, photo_id: str) -> PhotoInfo | None:
        """A photo of the index; None if it has no such photo."""
        with open_catalogue(self.index) as catalogue:
            entries = catalogue.photos_with([photo_id]).get(photo_id)
        if not entries:
            return None
        names = tuple(entry.name for entry in entries)
        return PhotoInfo(photo_id, names, entries[0].label)

    def num_copies(self, photo_ids: Collection[str]) -> int:
        """How many files of the index have the contents of photos."""
        with open_catalogue(self.index) as catalogue:
            return sum(map(len, catalogue.photos_with(photo_ids).values()))

    def folders(self) -> dict[str, int]:
        """By folder, the number of photos in it and below, sorted by name."""
        with open_catalogue(self.index) as catalogue:
            return catalogue.folders()

    def labels(self) -> dict[str, int]:
        """By label, the number of photos, sorted by name."""
        with open_catalogue(self.index) as catalogue:
            return catalogue.labels()

    def refresh(self) -> bool:
        """Reads what has changed in the index since; returns whether anything had.

        Raises:
          UserError: the index is damaged; searches continue with what was read before.
        """
        with self._updating:
            before, by_engine = self._state, self._by_engine
            after = refreshed(before)
            if after is not before and self._engine is not None:
                self._by_engine = open_search(after, self._engine, by_engine)
            self._state = after
            return after is not before

    def add(self, paths: Sequence[Path]) -> Added:
        """Adds files below the root to the index; the cost is theirs alone.

        Raises:
          UserError: a path is not that of a photo below the root, another process
            updates the index, or a file cannot be written.
        """
        added = add_files(
            self.index, paths, lambda copy: self.extractor, root=self.root
        )
        self.refresh()
        return added

    def remove(self, photo_ids: Sequence[str]) -> list[str]:
        """Removes photos from the index; their files stay, and updates skip them.

        Returns:
          The names of the photos that were removed.

        Raises:
          UserError: another process updates the index, or it cannot be written.
        """
        entries = remove_photos(self.index, photo_ids)
        self.refresh()
        return [entry.name for entry in entries]

    def browse(
        self, filters: Filters, offset: int, top: int
    ) -> tuple[list[tuple[str, str]], int]:
        """Lists photos by name: ids and names of some, and how many there are."""
        with open_catalogue(self.index) as catalogue:
            found, total = catalogue.browse(
                filters.folders, filters.labels, offset, top
            )
        return [(entry.digest, entry.name) for entry in found], total

    def warm_up(self) -> None:
        """Compiles the programs of searches before the first comes."""
        dims = self._state.database.dims
        for count in (1, 4, 16):
            self.search(np.full((count, dims), dims**-0.5, np.float32), 1)
