"""Searching an open index by an engine.

An engine only chooses rows. They are scored with their descriptors in the index, so
that scores, and the order of what is found, are those of the exact search. Rows that
the engine lacks are always among the chosen, and what was removed from the index never
is: an engine that lags behind makes searches slower, not wrong.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from tokret.search.engines.opening import open_engine
from tokret.search.engines.points import Contents, model_digest, photo_digest_of
from tokret.search.engines.protocol import MOST, Candidate, Engine, Filter
from tokret.search.engines.recording import EngineRecord
from tokret.search.filters import Filters, folder_of
from tokret.search.held_index import HeldIndex
from tokret.search.hits import Hit, first_hits
from tokret.shapes import Bool, Float

MARGIN = 32  # more points than photos are wanted: some may be removed or skipped


class _Chosen(NamedTuple):
    rows: Bool[np.ndarray, " n"]  # of the index
    others: list[Hit]  # photos of other indexes
    is_all: bool  # whether there is no more


class EngineSearch:
    """An index as it is at some time, searched by an engine."""

    def __init__(
        self,
        state: HeldIndex,
        record: EngineRecord,
        engine: Engine,
        before: "EngineSearch | None" = None,
    ) -> None:
        """Compares the index with the engine.

        Args:
          state: the index.
          record: what it records of the engine.
          engine: the engine, open.
          before: the same of an earlier time.
        """
        self.state, self.engine = state, engine
        mask = np.uint64(int(photo_digest_of(0, engine.writer), 16))
        points = state.ids ^ mask
        stats = engine.stats()
        self.token, self.num_others = stats.token, stats.total - stats.points
        if self.token == record.token(state.changes):
            self.known = points[state.used]
        elif before is not None and self.token == before.token:
            self.known = before.known
        else:
            self.known = engine.listing().ids
        # Of rows that are read again the last is used.
        self._order = np.flatnonzero(state.used)
        self._order = self._order[np.argsort(points[self._order], kind="stable")]
        self._points = points[self._order]
        self.pending = state.used & ~np.isin(points, self.known)

    def search(
        self,
        search_rows: Callable[[Bool[np.ndarray, " n"]], list[list[Hit]]],
        query: Float[np.ndarray, "1 d"],
        top: int,
        filters: Filters,
        leave_out: Collection[str],
    ) -> list[Hit]:
        """The best hits for a query, but for what the engine does not retrieve.

        Args:
          search_rows: searches some rows of the index for the query, exactly.
          query: its descriptor.
          top: how many photos, at most.
          filters: which photos to search.
          leave_out: ids of photos that are skipped.

        Raises:
          UserError: the engine cannot be reached.
        """
        allowed = self.state.chosen(filters, leave_out)
        skipped = {*leave_out}
        want = min(top + MARGIN + len(skipped), MOST)
        while True:
            chosen = self.choose(query, want, filters)
            rows = chosen.rows if allowed is None else chosen.rows & allowed
            others = [hit for hit in chosen.others if hit.id not in skipped]
            (own,) = search_rows(rows)
            hits = first_hits([*own, *others], top)
            if len(hits) >= top or chosen.is_all:
                return hits
            want = min(4 * want, MOST)

    def choose(
        self, query: Float[np.ndarray, "1 d"], want: int, filters: Filters
    ) -> _Chosen:
        """What the engine retrieves for a query, and all that it lacks."""
        (candidates,) = self.engine.search(query, want, _filter(filters))
        points = np.array([each.point for each in candidates], np.uint64)
        place = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        own = self._points[place] == points
        rows = self.pending.copy()
        rows[self._order[place[own]]] = True
        others = [
            hit
            for candidate, is_own in zip(candidates, own.tolist(), strict=True)
            if not is_own
            for hit in self._others(candidate, filters)
        ]
        return _Chosen(rows, others, len(candidates) < want or want == MOST)

    def _others(self, candidate: Candidate, filters: Filters) -> list[Hit]:
        """The photos of a point that the index does not have."""
        payload = candidate.payload
        removed = photo_digest_of(candidate.point, self.engine.writer)
        if payload is None or payload.digest == removed:
            return []
        return [
            Hit(file.path, candidate.score, payload.digest, file.label)
            for file in payload.files
            if not filters or filters.accepts(folder_of(file.path))
        ]


def open_search(
    state: HeldIndex, record: EngineRecord, before: EngineSearch | None = None
) -> EngineSearch:
    """Opens the engine of an index.

    Raises:
      UserError: it cannot be used.
    """
    contents = Contents(model_digest(state.model), state.database.dims)
    engine = open_engine(record.url, state.source.folder, contents, record.shard)
    return EngineSearch(state, record, engine, before)


def _filter(filters: Filters) -> Filter:
    """Filters as engines have them, where "" is no folder."""
    return Filter(() if "" in filters.folders else filters.folders, filters.labels)
