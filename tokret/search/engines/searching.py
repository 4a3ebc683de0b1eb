"""Searching an index by an engine: which rows it retrieves, and which it lacks.

An engine only chooses rows. They are scored with their descriptors in the index, so
that scores, and the order of those that are found, are those of the exact search. Rows
that the engine lacks are always among the chosen ones, and what has been removed from
the index never is: an engine that lags behind makes searches slower, not wrong.
"""

from typing import NamedTuple

import numpy as np

from tokret.search.engines.points import PhotoFile, photo_digest_of
from tokret.search.engines.protocol import MOST, Engine, Filter
from tokret.shapes import Bool, Float, Int, Shaped


class ForeignFile(NamedTuple):
    """A photo that another index has put into the engine."""

    file: PhotoFile
    digest: str
    score: float  # the engine's own


class Chosen(NamedTuple):
    """What an engine retrieves for a query."""

    rows: Bool[np.ndarray, " n"]  # of the index
    foreign: list[ForeignFile]
    is_all: bool  # whether more would not be retrieved if more were wanted


class EngineRows:
    """The rows of an index as it is at some time, found by an engine."""

    def __init__(
        self,
        engine: Engine,
        ids: Shaped[np.ndarray, " n"],
        used: Bool[np.ndarray, " n"],
        is_current: bool,
    ) -> None:
        """Compares the index with the engine.

        Args:
          engine: an engine that is open.
          ids: of each row of the index, its digest as uint64.
          used: which rows photos have.
          is_current: whether the engine is known to have all of them.
        """
        self.engine = engine
        points = ids if engine.writer == "" else _points(ids, engine.writer)
        self._order = np.argsort(points, kind="stable")
        self._points = points[self._order]
        self._used = used
        self.pending = np.zeros(len(ids), bool)
        if not is_current:
            listed = engine.listing().ids
            self.pending = used & ~np.isin(points, listed, kind="sort")

    def choose(self, query: Float[np.ndarray, " d"], want: int, only: Filter) -> Chosen:
        """The rows that an engine retrieves, and those that it lacks."""
        want = min(want, MOST)
        (candidates,) = self.engine.search(query[None], want, only)
        points = np.array([each.point for each in candidates], np.uint64)
        rows = self.pending.copy()
        found, own = self._rows(points)
        rows[found] = True
        rows &= self._used
        foreign = []
        for candidate, is_own in zip(candidates, own.tolist(), strict=True):
            payload = candidate.payload
            if is_own or payload is None:
                continue
            if payload.digest == photo_digest_of(candidate.point, self.engine.writer):
                continue  # removed from the index since
            foreign += [
                ForeignFile(file, payload.digest, candidate.score)
                for file in payload.files
            ]
        return Chosen(rows, foreign, len(candidates) < want or want == MOST)

    def _rows(
        self, points: Shaped[np.ndarray, " c"]
    ) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, " c"]]:
        """The rows of those points that the index has, and which have one."""
        place = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        own = self._points[place] == points
        return self._order[place[own]], own


def _points(digests: Shaped[np.ndarray, " n"], writer: str) -> Shaped[np.ndarray, " n"]:
    mask = np.uint64(int(photo_digest_of(0, writer), 16))
    return np.bitwise_xor(digests, mask)
