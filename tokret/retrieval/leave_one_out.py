"""Labelled items that ask one another: mean average precision and recall.

As in `tokret.retrieval.metrics`, everything is computed from ranks, in float64 NumPy.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tokret.retrieval import search
from tokret.retrieval.blocks import BLOCK, Blocks, Database, hold_blocks
from tokret.retrieval.metrics import CUTOFFS, padded
from tokret.retrieval.reranking.ranking import place_head
from tokret.shapes import Array, Int, Shaped

# Descriptors -> the form in which a compressed database is asked.
Ask = Callable[[np.ndarray], np.ndarray]


def plain_average_precision(rank: Int[np.ndarray, " p"]) -> float:
    """Average precision without interpolation: the mean of precision at each positive.

    Args:
      rank: [P] ranks of all the positives, from 0, in any order; P is at least 1.

    Returns:
      A fraction.
    """
    return float(np.mean(np.arange(1, len(rank) + 1) / (np.sort(rank) + 1)))


def cut_average_precision(rank: Int[np.ndarray, " p"], k: int) -> float:
    """Average precision of the first k places alone.

    The sum of the precision at each positive among them, divided by as many positives
    as they could hold (Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, section
    5.1: mAP@100).

    Args:
      rank: [P] ranks of all the positives, from 0, in any order; P is at least 1.
      k: the cutoff.

    Returns:
      A fraction.
    """
    place = np.sort(rank) + 1
    precision = np.arange(1, len(place) + 1) / place
    return float(np.sum(precision[place <= k]) / min(k, len(place)))


def leave_one_out(
    descriptors: Database,
    labels: Shaped[np.ndarray, " n"],
    block: int = BLOCK,
    queries: Shaped[Array | np.ndarray, "n d"] | None = None,
    asking: Sequence[int] | None = None,
    head: Int[np.ndarray, "n m"] | None = None,
    ask: Ask | None = None,
) -> dict[str, float]:
    """Each item asks all the others for those of its label.

    Args:
      descriptors: as of `leave_one_out_ranks`.
      labels: as there.
      block: as there.
      queries: as there.
      asking: as there.
      head: as there.
      ask: as there.

    Returns:
      What `leave_one_out_numbers` makes of the ranks.
    """
    ranks = leave_one_out_ranks(descriptors, labels, block, queries, asking, head, ask)
    return leave_one_out_numbers(ranks)


def leave_one_out_numbers(
    ranks: Mapping[int, Int[np.ndarray, " _"]],
) -> dict[str, float]:
    """Measures the rankings of `leave_one_out_ranks`.

    Args:
      ranks: by item that asks.

    Returns:
      "mAP": the mean of the plain average precision; "recall@k" for k of 1, 5 and 10:
      the share of queries that find their label among the first k; "mAP@k": the mean of
      `cut_average_precision`. NaN where no item asks.
    """
    lists = list(ranks.values())
    numbers = {"mAP": _mean([plain_average_precision(rank) for rank in lists])}
    for k in CUTOFFS:
        numbers[f"recall@{k}"] = _mean([float(rank.min() < k) for rank in lists])
        numbers[f"mAP@{k}"] = _mean([cut_average_precision(rank, k) for rank in lists])
    return numbers


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def leave_one_out_ranks(
    descriptors: Database,
    labels: Shaped[np.ndarray, " n"],
    block: int = BLOCK,
    queries: Shaped[Array | np.ndarray, "n d"] | None = None,
    asking: Sequence[int] | None = None,
    head: Int[np.ndarray, "n m"] | None = None,
    ask: Ask | None = None,
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
      ask: `Compressed.ask` where `descriptors` are the codes of a compressed database.

    Returns:
      By item that asks, the ranks from 0 of the others of its label, rising.
    """
    blocks = hold_blocks(descriptors, block)
    classes = _classmates(labels)
    # In the order of class sizes, so that the queries of a block need about the same
    # number of columns.
    may_ask = range(len(classes)) if asking is None else asking
    asking = sorted(
        (query for query in may_ask if len(classes[query]) > 1),
        key=lambda query: len(classes[query]),
    )
    step = min(search.QUERIES, max(1, blocks.rows // 4))
    by = np.asarray(descriptors if queries is None else queries)
    ranks: dict[int, Int[np.ndarray, " _"]] = {}
    for start in range(0, len(asking), step):
        asked = asking[start : start + step]
        found = _ranks_of_classmates(by, blocks, classes, asked, step, head, ask)
        ranks |= zip(asked, found, strict=True)
    return ranks


def _ranks_of_classmates(
    asking: Shaped[Array | np.ndarray, "n d"],
    blocks: Blocks,
    classes: Sequence[Int[np.ndarray, " _"]],
    asked: Sequence[int],
    rows: int,
    head: Int[np.ndarray, "n m"] | None,
    ask: Ask | None,
) -> list[Int[np.ndarray, " _"]]:
    """The ranks of each query's classmates among all items but the query."""
    mates = [classes[query][classes[query] != query] for query in asked]
    width = max(len(row) for row in mates)
    # Few shapes, few compilations: a full block of queries, columns a power of two.
    items = np.full((rows, 1 + (1 << (width - 1).bit_length())), -1, np.int32)
    items[: len(asked), 0] = asked
    items[: len(asked), 1:] = padded(mates, items.shape[1] - 1)
    queries = np.zeros((rows, asking.shape[1]), np.float32)
    queries[: len(asked)] = asking[np.asarray(asked)]
    ranks = search.count_ranks_in(ask(queries) if ask else queries, blocks, items)
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
