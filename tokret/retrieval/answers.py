"""The rankings of a benchmark's queries, in one form for both kinds of ground truth.

Reports and pictures are made from it, whether the ranks come from search or re-ranking
and whether the benchmark has queries of its own or labels alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tokret.data.views import View
from tokret.shapes import Float, Int

Verdict = Literal["hit", "miss", "junk"]
Ranks = Int[np.ndarray, " _"]
# Queries and a number k -> scores [q, k], falling, and items [q, k] of the database.
Best = Callable[
    [Sequence[int], int], tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]
]


@dataclass(frozen=True)
class ProtocolRanks:
    """The ranks of positives by one protocol."""

    # [Q], NaN where a query has no positives
    average_precision: Float[np.ndarray, " q"]
    # of each query's positives, from 0 and rising, without the items that the protocol
    # ignores
    ranks: Sequence[Ranks]


@dataclass(frozen=True)
class Costs:
    """Times and sizes."""

    extraction_seconds: float  # from views to descriptors, compilation included
    num_extracted: int  # descriptors computed; the others were in a store
    search_seconds: float  # from descriptors to ranks, compilation included
    dims: int  # of a descriptor
    item_bytes: int  # of a descriptor as it is searched


class RankedItem(NamedTuple):
    """A database item in a query's ranking."""

    item: int  # its index
    view: View
    verdict: Verdict  # whether it is a positive, by the main protocol
    score: float  # its similarity to the query
    rank: int | None  # from 1; None for junk, which is not ranked


@dataclass(frozen=True)
class Answers:
    """Rankings of a database of N items by Q queries."""

    # by name, the protocols; `main` is the one by which queries are sorted
    protocols: Mapping[str, ProtocolRanks]
    main: str  # a name in `protocols`
    queries: Sequence[View]  # Q photos, those with a box cropped to it
    database: Sequence[View]  # N photos
    classes: Sequence[str]  # each query's class; "" where there are none
    class_of: Callable[[int], str]  # a database item's class, as `classes`
    # for each query, by kind of positive ("easy", "hard", or ""), the ranks by the main
    # protocol
    positives: Sequence[Mapping[str, Ranks]]
    num_ranked: Sequence[int]  # of each query, how many items the main protocol ranks
    # (query, item) -> whether it is a positive, by the main protocol
    verdict: Callable[[int, int], Verdict]
    best: Best  # (queries, k) -> scores and items of the first k of each
    costs: Costs

    @property
    def precision(self) -> Float[np.ndarray, " q"]:
        """Average precision by the main protocol, [Q]."""
        return self.protocols[self.main].average_precision

    def first(self, queries: Sequence[int], count: int) -> list[list[RankedItem]]:
        """The first items of some queries' rankings, junk among them."""
        scores, items = self.best(queries, min(count, len(self.database)))
        views = {item: self.database[item] for item in np.unique(items).tolist()}
        rankings = []
        for query, *row in zip(queries, items.tolist(), scores.tolist(), strict=True):
            ranking: list[RankedItem] = []
            rank = 0
            for item, score in zip(*row, strict=True):
                verdict = self.verdict(query, item)
                rank += verdict != "junk"
                place = None if verdict == "junk" else rank
                ranking.append(RankedItem(item, views[item], verdict, score, place))
            rankings.append(ranking)
        return rankings


def first_miss(ranks: Ranks) -> int:
    """The first rank not among those of all positives, which are from 0 and rising."""
    gaps = np.flatnonzero(ranks != np.arange(len(ranks)))
    return int(gaps[0]) if len(gaps) else len(ranks)
