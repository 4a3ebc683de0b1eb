"""What an engine does: five calls, and how an index and an engine know each other."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from tokret.search.engines.points import Listing, Payload, Points
from tokret.shapes import Float, Shaped

MOST = 10_000  # points of one answer


class Candidate(NamedTuple):
    """A point that an engine returns."""

    point: int  # id
    score: float  # inner product; the engine's own, which may be an approximation
    payload: Payload | None = None  # None where the index has them all


class Stats(NamedTuple):
    """The state of an engine."""

    points: int  # of the writer
    total: int  # of all writers
    token: str  # of the writer's last complete update; "" during one


class Filter(NamedTuple):
    """Which points are searched: any of the folders, and any of the labels."""

    folders: tuple[str, ...] = ()  # with all that is below; () for all
    labels: tuple[str, ...] = ()  # () for all


EVERYTHING = Filter()


@runtime_checkable
class Engine(Protocol):
    """A collection of points of one model, opened for one writer.

    All calls raise a UserError that names the engine's URL, if it cannot be reached or
    answers with an error.
    """

    url: str  # for messages
    writer: str  # whose points are counted, listed and deleted

    def claim(self, token: str) -> None:
        """Records a token before the writer's first point, so that none other adds."""

    def add(self, points: Points) -> None:
        """Adds points of the writer, replacing those with the same ids."""

    def delete(self, ids: Shaped[np.ndarray, " n"]) -> None:
        """Deletes points of the writer; ids that do not exist are skipped."""

    def build(self, token: str) -> None:
        """Makes what was added and deleted durable, indexed and visible to searches.

        Args:
          token: recorded with it, for `stats`.
        """

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        top: int,
        only: Filter = EVERYTHING,
    ) -> list[list[Candidate]]:
        """The points of all writers with the highest scores, falling, for each query.

        Args:
          queries: float32, L2-normalised.
          top: how many of each, at most `MOST`.
          only: which points are searched.
        """
        ...

    def stats(self) -> Stats:
        """Counts points."""
        ...

    def listing(self) -> Listing:
        """The points of the writer."""
        ...

    def close(self) -> None:
        """Ends connections, and drops what was added and not built."""
