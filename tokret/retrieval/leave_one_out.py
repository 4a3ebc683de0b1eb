"""Labelled items that are queries for each other: mean average precision and recall.

As in `tokret.retrieval.metrics`, everything is computed from ranks, in float64 NumPy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tokret.retrieval.exact_search.blocks import (
    BLOCK,
    QUERIES,
    Blocks,
    Database,
    keep_on_devices,
    stream_blocks,
)
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.metrics import CUTOFFS, padded
from tokret.retrieval.reranking.ranking import place_reranked
from tokret.shapes import Array, Int, Shaped


def plain_average_precision(rank: Int[np.ndarray, " p"]) -> float:
    """Average precision without interpolation: the mean of precision at each positive.

    `rank` [P] are the ranks of all positives, from 0, in any order; P is at least 1.
    """
    return float(np.mean(np.arange(1, len(rank) + 1) / (np.sort(rank) + 1)))


def average_precision_at(rank: Int[np.ndarray, " p"], k: int) -> float:
    """Average precision of the first k places alone; `rank` as above.

    The sum of the precision at each positive among them, divided by as many positives
    as they could hold (Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, section
    5.1: mAP@100).
    """
    place = np.sort(rank) + 1
    precision = np.arange(1, len(place) + 1) / place
    return float(np.sum(precision[place <= k]) / min(k, len(place)))


def leave_one_out(
    descriptors: Database, labels: Shaped[np.ndarray, " n"], **options: Any
) -> dict[str, float]:
    """Measures the search of each item for the others of its label.

    Takes the arguments of `leave_one_out_ranks`, and returns `leave_one_out_metrics`.
    """
    return leave_one_out_metrics(leave_one_out_ranks(descriptors, labels, **options))


def leave_one_out_metrics(
    ranks: Mapping[int, Int[np.ndarray, " _"]],
) -> dict[str, float]:
    """Measures the rankings of `leave_one_out_ranks`.

    Returns:
      "mAP": the mean of the plain average precision; "recall@k" for k of 1, 5 and 10:
      the fraction of queries with an item of their label among the first k; "mAP@k":
      the mean of `average_precision_at`. NaN where there are no queries.
    """
    lists = list(ranks.values())
    metrics = {"mAP": _mean([plain_average_precision(rank) for rank in lists])}
    for k in CUTOFFS:
        metrics[f"recall@{k}"] = _mean([float(rank.min() < k) for rank in lists])
        metrics[f"mAP@{k}"] = _mean([average_precision_at(rank, k) for rank in lists])
    return metrics


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def leave_one_out_ranks(
    descriptors: Database,
    labels: Shaped[np.ndarray, " n"],
    block: int = BLOCK,
    queries: Shaped[Array | np.ndarray, "n d"] | None = None,
    query_items: Sequence[int] | None = None,
    reranked: Int[np.ndarray, "n m"] | None = None,
    encode_queries: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[int, Int[np.ndarray, " _"]]:
    """Ranks of the items of each item's label among all the others.

    An item without another of its label is no query. The query item itself is ranked
    with the rest and then removed. Work grows as N * N * (largest class): a hundred
    thousand items want an accelerator.

    Args:
      descriptors: [N, D], converted to float32, all on the device.
      labels: [N] numbers or strings.
      block: rows of the database, and at most a quarter as many queries, at once.
      queries: [N, D] each item's descriptor as a query; None takes `descriptors`.
      query_items: the items that are queries; None for all.
      reranked: [N, M] each one's first other items in the order of a re-ranking.
      encode_queries: `Compressed.encode_queries` where `descriptors` are the codes of a
        compressed database.

    Returns:
      By query item, the ranks from 0 of the others of its label, rising.
    """
    blocks = keep_on_devices(stream_blocks(descriptors, block))
    classes = _classmates(labels)
    # In the order of class sizes, so that the queries of a block need about the same
    # number of columns.
    candidates = range(len(classes)) if query_items is None else query_items
    chosen = [item for item in candidates if len(classes[item]) > 1]
    chosen.sort(key=lambda item: len(classes[item]))
    rows = min(QUERIES, max(1, blocks.rows // 4))
    vectors = np.asarray(descriptors if queries is None else queries)
    ranks: dict[int, Int[np.ndarray, " _"]] = {}
    for start in range(0, len(chosen), rows):
        part = chosen[start : start + rows]
        found = _ranks_of_classmates(
            vectors, blocks, classes, part, rows, reranked, encode_queries
        )
        ranks |= zip(part, found, strict=True)
    return ranks


def _ranks_of_classmates(
    vectors: Shaped[Array | np.ndarray, "n d"],
    blocks: Blocks,
    classes: Sequence[Int[np.ndarray, " _"]],
    query_items: Sequence[int],
    rows: int,
    reranked: Int[np.ndarray, "n m"] | None,
    encode_queries: Callable[[np.ndarray], np.ndarray] | None,
) -> list[Int[np.ndarray, " _"]]:
    """The ranks of each query's classmates among all items but the query."""
    mates = [classes[item][classes[item] != item] for item in query_items]
    width = max(len(row) for row in mates)
    # Few shapes, few compilations: a full block of queries, columns a power of two.
    items = np.full((rows, 1 + (1 << (width - 1).bit_length())), -1, np.int32)
    items[: len(mates), 0] = query_items
    items[: len(mates), 1:] = padded(mates, items.shape[1] - 1)
    queries = np.zeros((rows, vectors.shape[1]), np.float32)
    queries[: len(mates)] = vectors[np.asarray(query_items)]
    ranks = count_ranks(
        encode_queries(queries) if encode_queries else queries, blocks, items
    )
    found = []
    for item, row, mine in zip(query_items, ranks, mates, strict=False):
        others = row[1 : 1 + len(mine)] - (row[1 : 1 + len(mine)] > row[0])
        if reranked is not None:
            others = place_reranked(others[None], mine[None], reranked[item][None])[0]
        found.append(np.sort(others))
    return found


def _classmates(labels: Shaped[np.ndarray, " n"]) -> list[Int[np.ndarray, " _"]]:
    """For each item the indices of all items of its label, itself among them."""
    _, label = np.unique(labels, return_inverse=True)
    order = np.argsort(label, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(label))[:-1])
    return [members[number] for number in label]
