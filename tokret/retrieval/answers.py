"""What a system answered on a benchmark, in one form for both kinds of ground truth.

Reports and pictures are made from it: they ask neither how ranks came about nor whether
the benchmark has queries of its own or labels alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tokret.data.ground_truth import GroundTruth
from tokret.data.views import View
from tokret.retrieval import leave_one_out as among_labels
from tokret.retrieval import metrics
from tokret.shapes import Float, Int, Shaped

Verdict = Literal["hit", "miss", "junk"]
Ranks = Int[np.ndarray, " _"]
# Queries and a number k -> scores [q, k], falling, and items [q, k] of the database.
Best = Callable[
    [Sequence[int], int],
    tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]],
]


@dataclass(frozen=True)
class Protocol:
    """The rankings by one protocol.

    Attributes:
      average_precision: [Q], NaN where a query has no positives.
      ranks: of each query's positives, from 0 and rising, what the protocol ignores
        taken out.
    """

    average_precision: Float[np.ndarray, " q"]
    ranks: Sequence[Ranks]


@dataclass(frozen=True)
class Costs:
    """What the answers took.

    Attributes:
      extraction_seconds: from views to descriptors, compilation included.
      described: number of views; the others were taken from a store.
      search_seconds: from descriptors to ranks, compilation included.
      dims: of a descriptor.
      item_bytes: of a descriptor as it is searched.
    """

    extraction_seconds: float
    described: int
    search_seconds: float
    dims: int
    item_bytes: int


@dataclass(frozen=True)
class Answers:
    """Q queries asked a database of N items.

    Attributes:
      protocols: by name, the protocols; `main` is the one that queries are sorted by.
      main: a name in `protocols`.
      queries: Q photos, those with a box cropped to it.
      database: N photos.
      classes: each query's class; "" where there are none.
      class_of: a database item's class, as `classes`.
      positives: for each query, by kind of positive ("easy", "hard", or ""), the ranks
        by the main protocol.
      places: of each query, how many items the main protocol ranks.
      verdict: (query, item) -> what the main protocol makes of the item.
      best: (queries, k) -> scores and items of the first k of each.
      costs: what it took.
    """

    protocols: Mapping[str, Protocol]
    main: str
    queries: Sequence[View]
    database: Sequence[View]
    classes: Sequence[str]
    class_of: Callable[[int], str]
    positives: Sequence[Mapping[str, Ranks]]
    places: Sequence[int]
    verdict: Callable[[int, int], Verdict]
    best: Best
    costs: Costs

    @property
    def precision(self) -> Float[np.ndarray, " q"]:
        """Average precision by the main protocol, [Q]."""
        return self.protocols[self.main].average_precision


def first_miss(ranks: Ranks) -> int:
    """The rank, from 0, of the first item that is no positive.

    Args:
      ranks: of all the positives, from 0 and rising.
    """
    gaps = np.flatnonzero(ranks != np.arange(len(ranks)))
    return int(gaps[0]) if len(gaps) else len(ranks)


def verdict(truth: GroundTruth, query: int, item: int) -> Verdict:
    """Says what the ground truth's Medium protocol makes of a database item."""
    if item in truth.junk[query]:
        return "junk"
    right = item in truth.easy[query] or item in truth.hard[query]
    return "hit" if right else "miss"


def by_ground_truth(
    truth: GroundTruth,
    ranks: Int[np.ndarray, "q l"],
    found: metrics.Evaluation,
    database: Sequence[View],
    **rest: Any,
) -> Answers:
    """Gathers the answers of a benchmark with queries and lists of positives.

    Args:
      truth: the benchmark.
      ranks: [Q, L] of `metrics.labelled_items(truth)`, from 0.
      found: what `metrics.evaluate_ranks` made of them.
      database: N photos.
      **rest: `queries`, `best` and `costs`, as in `Answers`.
    """
    lists = [metrics.split_ranks(row, truth, query) for query, row in enumerate(ranks)]
    protocols = {}
    for level, protocol in metrics.PROTOCOLS.items():
        left = [
            metrics.without_junk(
                np.concatenate([each[name] for name in protocol.positive]),
                np.concatenate([each[name] for name in protocol.ignored]),
            )
            for each in lists
        ]
        protocols[level] = Protocol(found.average_precision[level], left)
    positives = [
        {
            kind: metrics.without_junk(each[kind], each["junk"])
            for kind in ("easy", "hard")
        }
        for each in lists
    ]
    return Answers(
        protocols=protocols,
        main="medium",
        classes=[""] * len(lists),
        class_of=lambda item: "",
        positives=positives,
        places=[len(database) - len(each["junk"]) for each in lists],
        database=database,
        verdict=lambda query, item: verdict(truth, query, item),
        **rest,
    )


def by_labels(
    labels: Shaped[np.ndarray, " n"],
    ranks: Mapping[int, Ranks],
    names: Callable[[Any], str],
    best: Best,
    database: Sequence[View],
    asked: Mapping[int, View],
    costs: Costs,
) -> Answers:
    """Gathers the answers of labelled photos, each of which asked all the others.

    Args:
      labels: [N] of the database.
      ranks: by item that asked, those of its classmates (`leave_one_out_ranks`).
      names: a label's name.
      best: (items, k) -> scores and items of the first k of each, itself among them.
      database: N photos.
      asked: by item, the photo it asked with where that is not the stored one.
      costs: what it took.
    """
    asking = sorted(ranks)
    mine = [ranks[item] for item in asking]
    average = np.array([among_labels.plain_average_precision(rank) for rank in mine])

    def others(
        queries: Sequence[int], count: int
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """One more than asked for, then without the item that asks."""
        items = np.array([asking[query] for query in queries])
        count = min(count, len(database) - 1)
        scores, found = best(items.tolist(), count + 1)
        kept = found != items[:, None]
        # Among equals it may stand further behind: then the last one goes.
        kept[kept.all(axis=1), -1] = False
        shape = (len(items), count)
        return scores[kept].reshape(shape), found[kept].reshape(shape)

    return Answers(
        protocols={"all": Protocol(average, mine)},
        main="all",
        queries=[asked.get(item, database[item]) for item in asking],
        database=database,
        classes=[names(labels[item]) for item in asking],
        class_of=lambda item: names(labels[item]),
        positives=[{"": rank} for rank in mine],
        places=[len(database) - 1] * len(mine),
        verdict=lambda query, item: (
            "hit" if labels[item] == labels[asking[query]] else "miss"
        ),
        best=others,
        costs=costs,
    )
