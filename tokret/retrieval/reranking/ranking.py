"""What every re-ranking takes and gives, and who is near whom in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from tokret.retrieval import search
from tokret.shapes import Array, Float, Int, Shaped

# The score of an item that could not be described.
NOTHING = np.finfo(np.float32).min
# Told how many more queries are done.
Progress = Callable[[int], object]


def ignore_progress(_: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Ranking:
    """For each query an order of the whole database.

    By falling dot products, ties by index, except that the items of `head` come first
    and in its order. They are the first M by dot products too, so what is behind them
    stays as it was.

    Attributes:
      queries: [Q, D] descriptors of length 1 (or of zeros).
      database: [N, D] descriptors of length 1 (or of zeros); may be memory-mapped.
      own: [Q] for each query the item that it is itself, where items ask for each
        other; that item neither votes nor is ranked. None where queries are no items.
      head: [Q, M] indices into the database, none twice in a row; None where the dot
        products alone decide.
    """

    queries: Shaped[Array | np.ndarray, "q d"]
    database: Shaped[Array | np.ndarray, "n d"]
    own: Int[np.ndarray, " q"] | None = None
    head: Int[np.ndarray, "q m"] | None = None


def nearest(
    ranking: Ranking, count: int
) -> tuple[Float[np.ndarray, "q m"], Int[np.ndarray, "q m"]]:
    """The first items of each query by dot products, itself left out.

    Memory: Q * count results, and what `search.top_k` takes while it runs.

    Args:
      ranking: `head` is not read.
      count: how many; where there are fewer items, all of them.

    Returns:
      [Q, M] float32 scores, falling, and [Q, M] int32 indices; M may be 0, and images
      that could not be described (rows of NaN) are left out: they score NOTHING, which
      stands here only in rows of queries or items that are NaN themselves.
    """
    alone = ranking.own is not None
    count = min(count, len(ranking.database) - alone)
    if count < 1:
        empty = (len(ranking.queries), 0)
        return np.zeros(empty, np.float32), np.zeros(empty, np.int32)
    scores, items = search.top_k(ranking.queries, ranking.database, count + alone)
    if ranking.own is None:
        return _described(scores, items)
    # Where duplicates crowd an item out of its own list, the last one goes instead.
    mine = items == ranking.own[:, None]
    others = np.argsort(mine, axis=1, kind="stable")[:, :count]
    return _described(
        np.take_along_axis(scores, others, axis=1),
        np.take_along_axis(items, others, axis=1),
    )


def _described(
    scores: Float[np.ndarray, "q m"], items: Int[np.ndarray, "q m"]
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Without the last columns, where no query found an image that was described."""
    found = (scores > NOTHING).any(axis=0)
    return scores[:, found], items[:, found]


def neighbour_graph(
    database: Shaped[Array | np.ndarray, "n d"], count: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The nearest other items of each item of a database.

    Memory: N * count results; the N * N products are never together, though all of them
    are computed.

    Args:
      database: [N, D] descriptors.
      count: how many; where there are fewer other items, all of them.

    Returns:
      [N, k] float32 scores, falling, and [N, k] int32 indices.
    """
    everyone = np.arange(len(database), dtype=np.int32)
    return nearest(Ranking(database, database, own=everyone), count)


def reorder(
    ranking: Ranking,
    first: tuple[Float[np.ndarray, "q m"], Int[np.ndarray, "q m"]],
    score: Callable[[int], Float[Array, " m"]],
    progress: Progress,
) -> Ranking:
    """Puts the first items of each query in the order of new scores.

    Args:
      ranking: whose head is set.
      first: [Q, M] products and indices of the first items, as `nearest` gives them.
      score: index of a query -> its items' new scores, larger is better; equal ones
        stay in the order they had, and what could not be described stays last.
      progress: told of every query.

    Returns:
      The ranking with that head.
    """
    products, items = first
    head = items.copy()
    for query in range(len(items) if items.shape[1] else 0):
        scores = np.where(products[query] > NOTHING, score(query), -np.inf)
        order = np.argsort(-scores, kind="stable")
        head[query] = items[query, order]
        progress(1)
    return replace(ranking, head=head)


def place_head(
    ranks: Int[np.ndarray, "q l"],
    labelled: Int[np.ndarray, "q l"],
    head: Int[np.ndarray, "q m"],
) -> Int[np.ndarray, "q l"]:
    """Ranks of labelled items after the first M were ordered anew.

    Args:
      ranks: [Q, L] by dot products, from 0; -1 where `labelled` is -1.
      labelled: [Q, L] indices into the database, padded with -1.
      head: [Q, M] the first items in their new order.

    Returns:
      [Q, L] int32 ranks; -1 where `labelled` is -1.
    """
    count = head.shape[1]
    # Two programs may round two products near the head's end differently: what is not
    # in the head is behind it all the same.
    placed = np.where(labelled >= 0, np.maximum(ranks, count), -1).astype(np.int32)
    if not count:
        return placed
    for row, items, first in zip(placed, labelled, head, strict=True):
        order = np.argsort(first)
        found = np.minimum(np.searchsorted(first[order], items), count - 1)
        inside = first[order[found]] == items
        row[inside] = order[found[inside]]
    return placed


def rows_of(
    database: Shaped[Array | np.ndarray, "n d"], items: Int[np.ndarray, "*m"]
) -> Float[Array, "*m d"]:
    """Reads the descriptors of a few items; NaN, which would spread, becomes 0."""
    rows = np.asarray(database[items], np.float32)
    return jnp.asarray(np.where(np.isnan(rows), np.float32(0), rows))
