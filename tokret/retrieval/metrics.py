"""Mean average precision: the Revisited protocols and leave-one-out among labels.

Everything here is computed from ranks, which `tokret.retrieval.search` counts: ranks
are exact integers, and what follows from them is float64 NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tokret.retrieval import search
from tokret.retrieval.blocks import Database
from tokret.retrieval.ground_truth import GroundTruth
from tokret.retrieval.reranking.ranking import place_head
from tokret.shapes import Array, Float, Int, Shaped

CUTOFFS = (1, 5, 10)


class Protocol(NamedTuple):
    """Which lists of the ground truth count as right, and which are passed over."""

    positive: tuple[str, ...]
    ignored: tuple[str, ...]


# Radenovic et al., "Revisiting Oxford and Paris", CVPR 2018, section 3.3.
PROTOCOLS: Mapping[str, Protocol] = {
    "easy": Protocol(positive=("easy",), ignored=("hard", "junk")),
    "medium": Protocol(positive=("easy", "hard"), ignored=("junk",)),
    "hard": Protocol(positive=("hard",), ignored=("easy", "junk")),
}


@dataclass(frozen=True)
class Evaluation:
    """What a ranking is worth.

    Attributes:
      levels: by protocol (easy, medium, hard), then by number ("mAP", "mP@1", "mP@5",
        "mP@10"): the mean over the queries that have positives there, as a fraction;
        NaN where no query has any.
      average_precision: by protocol, [Q] float64, NaN for a query without positives.
    """

    levels: dict[str, dict[str, float]]
    average_precision: dict[str, Float[np.ndarray, " q"]]


def evaluate(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database,
    truth: GroundTruth,
    block: int = search.BLOCK,
    head: Int[np.ndarray, "q m"] | None = None,
) -> Evaluation:
    """Searches the database for every query and measures the rankings.

    Args:
      queries: [Q, D] descriptors in the order of the ground truth's queries, in the
        form that `search.count_ranks` wants for the database.
      database: [N, D] descriptors in the order of its images; further ones, which
        nothing labels, may follow as distractors.
      truth: the benchmark.
      block: database rows on the device at once.
      head: [Q, M] each query's first items in the order that a re-ranking gave them.

    Returns:
      The means and each query's average precision.
    """
    labelled = labelled_items(truth)
    ranks = search.count_ranks(queries, database, labelled, block)
    if head is not None:
        ranks = place_head(ranks, labelled, head)
    return evaluate_ranks(ranks, truth)


def labelled_items(truth: GroundTruth) -> Int[np.ndarray, "q l"]:
    """The items whose ranks matter: easy, hard, junk in a row, padded with -1.

    Args:
      truth: a benchmark of Q queries.

    Returns:
      [Q, L] int32 indices into the database, L the longest row.
    """
    rows = [
        np.concatenate(lists)
        for lists in zip(truth.easy, truth.hard, truth.junk, strict=True)
    ]
    return _padded(rows, max(len(row) for row in rows))


def evaluate_ranks(ranks: Int[np.ndarray, "q l"], truth: GroundTruth) -> Evaluation:
    """Measures rankings, given the ranks of the labelled items.

    Args:
      ranks: [Q, L] ranks of `labelled_items(truth)`, from 0.
      truth: the benchmark.

    Returns:
      The means and each query's average precision.
    """
    by_list = [split_ranks(row, truth, query) for query, row in enumerate(ranks)]
    levels, average = {}, {}
    for level, protocol in PROTOCOLS.items():
        values = np.array([_query_values(lists, protocol) for lists in by_list])
        average[level] = values[:, 0]
        answered = values[~np.isnan(values[:, 0])]
        means = answered.mean(axis=0) if len(answered) else values[0]
        names = ("mAP", *(f"mP@{k}" for k in CUTOFFS))
        levels[level] = dict(zip(names, means.tolist(), strict=True))
    return Evaluation(levels, average)


def split_ranks(
    ranks: Int[np.ndarray, " l"], truth: GroundTruth, query: int
) -> dict[str, Int[np.ndarray, " _"]]:
    """Names the parts of one row that follows `labelled_items`.

    Args:
      ranks: [L] of the query's labelled items, from 0, and padding behind them.
      truth: the benchmark.
      query: its index.

    Returns:
      Ranks by list: easy, hard, junk.
    """
    easy, hard = len(truth.easy[query]), len(truth.hard[query])
    junk = len(truth.junk[query])
    return {
        "easy": ranks[:easy],
        "hard": ranks[easy : easy + hard],
        "junk": ranks[easy + hard : easy + hard + junk],
    }


def without_junk(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"]
) -> Int[np.ndarray, " p"]:
    """Ranks of the positives as if the junk had never been in the database.

    Args:
      positive: [P] ranks from 0, in any order.
      junk: [J] ranks from 0, in any order.

    Returns:
      [P] ranks, rising.
    """
    rising = np.sort(positive)
    return rising - np.searchsorted(np.sort(junk), rising)


def average_precision(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"]
) -> float:
    """Average precision by the trapezoid rule of the Oxford buildings benchmark.

    Each positive adds 1 / P times the mean of the precision just before it and at it;
    before the very first rank the precision counts as 1 (Philbin et al., CVPR 2007;
    the released evaluations of the Revisited protocol keep the rule).

    Args:
      positive: [P] ranks of all the positives, from 0; P is at least 1.
      junk: [J] ranks of what is passed over.

    Returns:
      A fraction.
    """
    rank = without_junk(positive, junk).astype(np.float64)
    found = np.arange(len(rank))
    before = np.where(rank > 0, found / np.maximum(rank, 1), 1.0)
    at = (found + 1) / (rank + 1)
    return float(np.sum(before + at) / (2 * len(rank)))


def precision_at(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"], k: int
) -> float:
    """Precision among the first k, or up to the last positive where that comes sooner.

    The released evaluation of the Revisited protocol shortens k so: a query of two
    positives can reach a precision at 10 of 1.

    Args:
      positive: [P] ranks of all the positives, from 0; P is at least 1.
      junk: [J] ranks of what is passed over.
      k: the cutoff.

    Returns:
      A fraction.
    """
    place = without_junk(positive, junk) + 1
    cutoff = min(int(place.max()), k)
    return np.count_nonzero(place <= cutoff) / cutoff


def plain_average_precision(rank: Int[np.ndarray, " p"]) -> float:
    """Average precision without interpolation: the mean of precision at each positive.

    Args:
      rank: [P] ranks of all the positives, from 0, in any order; P is at least 1.

    Returns:
      A fraction.
    """
    return float(np.mean(np.arange(1, len(rank) + 1) / (np.sort(rank) + 1)))


def leave_one_out(
    descriptors: Shaped[Array | np.ndarray, "n d"],
    labels: Shaped[np.ndarray, " n"],
    block: int = search.BLOCK,
    queries: Shaped[Array | np.ndarray, "n d"] | None = None,
    asking: Sequence[int] | None = None,
    head: Int[np.ndarray, "n m"] | None = None,
) -> dict[str, float]:
    """Each item asks all the others for those of its label.

    Args:
      descriptors: as of `leave_one_out_ranks`.
      labels: as there.
      block: as there.
      queries: as there.
      asking: as there.
      head: as there.

    Returns:
      What `leave_one_out_numbers` makes of the ranks.
    """
    ranks = leave_one_out_ranks(descriptors, labels, block, queries, asking, head)
    return leave_one_out_numbers(ranks)


def leave_one_out_numbers(
    ranks: Mapping[int, Int[np.ndarray, " _"]],
) -> dict[str, float]:
    """Measures the rankings of `leave_one_out_ranks`.

    Args:
      ranks: by item that asks.

    Returns:
      "mAP": the mean of the plain average precision, and "recall@1": the share of
      queries whose first hit has their label; NaN where no item asks.
    """
    if not ranks:
        return {"mAP": float("nan"), "recall@1": float("nan")}
    average = [plain_average_precision(rank) for rank in ranks.values()]
    first = [bool(rank.min() == 0) for rank in ranks.values()]
    return {"mAP": float(np.mean(average)), "recall@1": float(np.mean(first))}


def leave_one_out_ranks(
    descriptors: Shaped[Array | np.ndarray, "n d"],
    labels: Shaped[np.ndarray, " n"],
    block: int = search.BLOCK,
    queries: Shaped[Array | np.ndarray, "n d"] | None = None,
    asking: Sequence[int] | None = None,
    head: Int[np.ndarray, "n m"] | None = None,
) -> dict[int, Int[np.ndarray, " _"]]:
    """Ranks of the items of each item's label among all the others.

    An item without another of its label does not ask. The item itself is ranked with
    the rest and then passed over. Work grows as N * N * (largest class): a hundred
    thousand items want an accelerator.

    Args:
      descriptors: [N, D], computed with in float32, all on the device.
      labels: [N] numbers or strings.
      block: rows of the database, and at most a quarter as many queries, at once.
      queries: [N, D] by which the items ask; None takes their descriptors.
      asking: the items that ask; None for all.
      head: [N, M] each one's first other items in the order that a re-ranking gave
        them.

    Returns:
      By item that asks, the ranks from 0 of the others of its label, rising.
    """
    blocks = search.hold_blocks(descriptors, block)
    classes = _classmates(labels)
    # In the order of class sizes, so that the queries of a block need about the same
    # number of columns.
    may_ask = range(len(classes)) if asking is None else asking
    asking = sorted(
        (query for query in may_ask if len(classes[query]) > 1),
        key=lambda query: len(classes[query]),
    )
    step = min(search.QUERIES, max(1, blocks.rows // 4))
    by = descriptors if queries is None else queries
    ranks: dict[int, Int[np.ndarray, " _"]] = {}
    for start in range(0, len(asking), step):
        asked = asking[start : start + step]
        found = _ranks_of_classmates(by, blocks, classes, asked, step, head)
        ranks |= zip(asked, found, strict=True)
    return ranks


def _ranks_of_classmates(
    asking: Shaped[Array | np.ndarray, "n d"],
    blocks: search.Blocks,
    classes: Sequence[Int[np.ndarray, " _"]],
    asked: Sequence[int],
    rows: int,
    head: Int[np.ndarray, "n m"] | None,
) -> list[Int[np.ndarray, " _"]]:
    """The ranks of each query's classmates among all items but the query."""
    mates = [classes[query][classes[query] != query] for query in asked]
    width = max(len(row) for row in mates)
    # Few shapes, few compilations: a full block of queries, columns a power of two.
    items = np.full((rows, 1 + (1 << (width - 1).bit_length())), -1, np.int32)
    items[: len(asked), 0] = asked
    items[: len(asked), 1:] = _padded(mates, items.shape[1] - 1)
    queries = np.zeros((rows, asking.shape[1]), np.float32)
    queries[: len(asked)] = np.asarray(asking[np.asarray(asked)])
    ranks = search.count_ranks_in(queries, blocks, items)
    found = []
    for query, row, mine in zip(asked, ranks, mates, strict=False):
        among = row[1 : 1 + len(mine)]
        others = among - (among > row[0])
        if head is not None:
            others = place_head(others[None], mine[None], head[query][None])[0]
        found.append(np.sort(others))
    return found


def _classmates(labels: Shaped[np.ndarray, " n"]) -> list[Int[np.ndarray, " _"]]:
    """For each item the indices of all items of its label, itself among them."""
    _, label = np.unique(labels, return_inverse=True)
    order = np.argsort(label, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(label))[:-1])
    return [members[number] for number in label]


def _padded(
    rows: Sequence[Int[np.ndarray, " _"]], width: int
) -> Int[np.ndarray, "q {width}"]:
    padded = np.full((len(rows), width), -1, np.int32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _query_values(
    lists: Mapping[str, Int[np.ndarray, " _"]], protocol: Protocol
) -> list[float]:
    """Average precision and the precisions at CUTOFFS; NaN without positives."""
    positive = np.concatenate([lists[name] for name in protocol.positive])
    ignored = np.concatenate([lists[name] for name in protocol.ignored])
    if not len(positive):
        return [float("nan")] * (1 + len(CUTOFFS))
    precisions = [precision_at(positive, ignored, k) for k in CUTOFFS]
    return [average_precision(positive, ignored), *precisions]
