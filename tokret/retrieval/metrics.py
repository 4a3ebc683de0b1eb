"""Mean average precision by the Revisited protocols.

Everything here is computed from ranks, which `exact_search.ranks` counts: these are
exact integers, and the metrics are float64 NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tokret.data.ground_truth import GroundTruth
from tokret.retrieval.exact_search.blocks import BLOCK, Database
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.shapes import Array, Float, Int, Shaped

CUTOFFS = (1, 5, 10)


class RevisitedProtocol(NamedTuple):
    """Which lists of the ground truth are positive, and which are ignored."""

    positive: tuple[str, ...]
    ignored: tuple[str, ...]


# Radenovic et al., "Revisiting Oxford and Paris", CVPR 2018, section 3.3.
PROTOCOLS: Mapping[str, RevisitedProtocol] = {
    "easy": RevisitedProtocol(positive=("easy",), ignored=("hard", "junk")),
    "medium": RevisitedProtocol(positive=("easy", "hard"), ignored=("junk",)),
    "hard": RevisitedProtocol(positive=("hard",), ignored=("easy", "junk")),
}


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a ranking."""

    # by protocol (easy, medium, hard), then by metric ("mAP", "mP@1", "mP@5", "mP@10"):
    # the mean over the queries that have positives there, as a fraction; NaN where no
    # query has any
    means: dict[str, dict[str, float]]
    # by protocol, [Q] float64, NaN for a query without positives
    average_precision: dict[str, Float[np.ndarray, " q"]]


def evaluate(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database,
    truth: GroundTruth,
    block: int = BLOCK,
) -> Evaluation:
    """Searches the database for every query and measures the rankings.

    Args:
      queries: [Q, D] descriptors in the order of the ground truth's queries, in the
        form that `count_ranks` wants for the database.
      database: [N, D] descriptors in the order of its images; unlabelled ones may
        follow as distractors.
      truth: the benchmark.
      block: database rows on the device at once.
    """
    ranks = count_ranks(queries, database, labelled_items(truth), block)
    return evaluate_ranks(ranks, truth)


def labelled_items(truth: GroundTruth) -> Int[np.ndarray, "q l"]:
    """The items whose ranks matter: easy, hard, junk in a row, padded with -1.

    Returns [Q, L] int32 indices into the database, L the longest row.
    """
    rows = [
        np.concatenate(lists)
        for lists in zip(truth.easy, truth.hard, truth.junk, strict=True)
    ]
    return padded(rows, max(len(row) for row in rows))


def evaluate_ranks(ranks: Int[np.ndarray, "q l"], truth: GroundTruth) -> Evaluation:
    """Measures rankings by the ranks [Q, L], from 0, of `labelled_items(truth)`."""
    by_list = [split_ranks(row, truth, query) for query, row in enumerate(ranks)]
    means, average = {}, {}
    for name, protocol in PROTOCOLS.items():
        values = np.array([_query_values(lists, protocol) for lists in by_list])
        average[name] = values[:, 0]
        counted = values[~np.isnan(values[:, 0])]
        mean = counted.mean(axis=0) if len(counted) else values[0]
        keys = ("mAP", *(f"mP@{k}" for k in CUTOFFS))
        means[name] = dict(zip(keys, mean.tolist(), strict=True))
    return Evaluation(means, average)


def split_ranks(
    ranks: Int[np.ndarray, " l"], truth: GroundTruth, query: int
) -> dict[str, Int[np.ndarray, " _"]]:
    """Splits a query's row, in the order of `labelled_items`: easy, hard and junk."""
    ends = np.cumsum([len(x[query]) for x in (truth.easy, truth.hard, truth.junk)])
    lists = np.split(ranks, ends)  # and the padding
    return dict(zip(("easy", "hard", "junk"), lists, strict=False))


def without_junk(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"]
) -> Int[np.ndarray, " p"]:
    """Ranks of the positives, rising, as if the junk had never been in the database."""
    rising = np.sort(positive)
    return rising - np.searchsorted(np.sort(junk), rising)


def average_precision(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"]
) -> float:
    """Average precision by the trapezoid rule of the Oxford buildings benchmark.

    Each positive adds 1 / P times the mean of the precision just before it and at it;
    before the very first rank the precision is 1 (Philbin et al., CVPR 2007;
    the released evaluations of the Revisited protocol keep the rule). The ranks of all
    P positives, at least 1, and of the ignored items are from 0.
    """
    rank = without_junk(positive, junk).astype(np.float64)
    found = np.arange(len(rank))
    before = np.where(rank > 0, found / np.maximum(rank, 1), 1.0)
    at = (found + 1) / (rank + 1)
    return float(np.sum(before + at) / (2 * len(rank)))


def precision_at(
    positive: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"], k: int
) -> float:
    """Precision among the first k, or up to the last positive if that comes sooner.

    The released evaluation of the Revisited protocol shortens k in this way: a query of
    two positives can reach a precision at 10 of 1. Ranks as for `average_precision`.
    """
    place = without_junk(positive, junk) + 1
    cutoff = min(int(place.max()), k)
    return np.count_nonzero(place <= cutoff) / cutoff


def padded(
    rows: Sequence[Int[np.ndarray, " _"]], width: int
) -> Int[np.ndarray, "q {width}"]:
    """Stacks lists of indices, padded with -1 to one width."""
    filled = np.full((len(rows), width), -1, np.int32)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def _query_values(
    lists: Mapping[str, Int[np.ndarray, " _"]], protocol: RevisitedProtocol
) -> list[float]:
    """Average precision and the precisions at CUTOFFS; NaN without positives."""
    positive = np.concatenate([lists[name] for name in protocol.positive])
    ignored = np.concatenate([lists[name] for name in protocol.ignored])
    if not len(positive):
        return [float("nan")] * (1 + len(CUTOFFS))
    precisions = [precision_at(positive, ignored, k) for k in CUTOFFS]
    return [average_precision(positive, ignored), *precisions]
