"""The input and output of every re-ranking, and the nearest items in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import jax.numpy as jnp
import msgspec
import numpy as np

from tokret.retrieval.exact_search.top_k import top_k
from tokret.shapes import Array, Float, Int, Shaped

# The score of an item without a descriptor.
MISSING_SCORE = np.finfo(np.float32).min
# Called with the number of queries done since the last call.
Progress = Callable[[int], object]

# Scores, falling, and indices of the first items of each query.
Nearest = tuple[Float[np.ndarray, "q m"], Int[np.ndarray, "q m"]]

# Arguments of re-rankings.
Count = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
# Methods that hold the products of the first items then take some gigabytes.
Top = Annotated[int, msgspec.Meta(ge=1, le=20_000)]
Factor = Annotated[float, msgspec.Meta(ge=0, le=10**6)]


@dataclass(frozen=True)
class Ranking:
    """For each query an order of the whole database.

    By falling dot products, ties by index, except that the items of `reranked` come
    first and in its order. They are the first M by dot products too, so the order
    behind them does not change.
    """

    # [Q, D] descriptors of length 1 (or of zeros)
    queries: Shaped[Array | np.ndarray, "q d"]
    # [N, D] descriptors of length 1 (or of zeros); may be memory-mapped
    database: Shaped[Array | np.ndarray, "n d"]
    # [Q] the database item that each query is itself, in leave-one-out; that item
    # neither votes nor is ranked. None where queries are no items
    query_items: Int[np.ndarray, " q"] | None = None
    # [Q, M] indices into the database, none twice in a row; None where the dot products
    # alone decide
    reranked: Int[np.ndarray, "q m"] | None = None


def nearest(ranking: Ranking, count: int) -> Nearest:
    """The first items of each query by dot products, without the query item.

    `reranked` is not read. Memory: Q * count results, and that of `top_k`.

    Returns:
      [Q, M] float32 scores, falling, and [Q, M] int32 indices; M is `count` or fewer,
      maybe 0. Images without a descriptor (rows of NaN) are skipped: MISSING_SCORE
      occurs only in rows of queries or items that are NaN themselves.
    """
    excluded = ranking.query_items is not None
    count = min(count, len(ranking.database) - excluded)
    if count < 1:
        empty = (len(ranking.queries), 0)
        return np.zeros(empty, np.float32), np.zeros(empty, np.int32)
    scores, items = top_k(ranking.queries, ranking.database, count + excluded)
    if ranking.query_items is not None:
        # A query item that duplicates push out of its own list is not there to remove:
        # then the last item goes instead.
        mine = items == ranking.query_items[:, None]
        others = np.argsort(mine, axis=1, kind="stable")[:, :count]
        scores = np.take_along_axis(scores, others, axis=1)
        items = np.take_along_axis(items, others, axis=1)
    # The last columns may hold items without a descriptor for every query.
    found = (scores > MISSING_SCORE).any(axis=0)
    return scores[:, found], items[:, found]


def neighbour_graph(
    database: Shaped[Array | np.ndarray, "n d"], count: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The nearest other items of each item of a database [N, D], at most `count`.

    Returns [N, k] float32 scores, falling, and [N, k] int32 indices. All N * N products
    are computed, and never held together.
    """
    everyone = np.arange(len(database), dtype=np.int32)
    return nearest(Ranking(database, database, everyone), count)


def reorder(
    ranking: Ranking,
    first: Nearest,
    score: Callable[[int], Float[Array, " m"]],
    progress: Progress,
) -> Ranking:
    """Puts the first items [Q, M] of each query in the order of new scores.

    `score` gives, by the index of a query, its items' new scores, larger is better;
    equal ones keep their order, and items without a descriptor stay last. `progress` is
    called after every query.
    """
    products, items = first
    reranked = items.copy()
    for query in range(len(items) if items.shape[1] else 0):
        scores = np.where(products[query] > MISSING_SCORE, score(query), -np.inf)
        reranked[query] = items[query, np.argsort(-scores, kind="stable")]
        progress(1)
    return replace(ranking, reranked=reranked)


def rescore(
    ranking: Ranking,
    top: int,
    score: Callable[[Float[Array, " d"], Float[Array, "m d"]], Float[Array, " m"]],
    progress: Progress,
) -> Ranking:
    """`reorder` of the first `top` items; `score` takes a query and descriptors."""
    first = nearest(ranking, top)
    queries = np.asarray(ranking.queries, np.float32)

    def score_of(query: int) -> Float[Array, " m"]:
        candidates = read_rows(ranking.database, first[1][query])
        return score(jnp.asarray(queries[query]), candidates)

    return reorder(ranking, first, score_of, progress)


def place_reranked(
    ranks: Int[np.ndarray, "q l"],
    labelled: Int[np.ndarray, "q l"],
    reranked: Int[np.ndarray, "q m"],
) -> Int[np.ndarray, "q l"]:
    """Ranks [Q, L] int32 of labelled items after the first M were re-ranked.

    Args:
      ranks: [Q, L] by dot products, from 0; -1 where `labelled` is -1.
      labelled: [Q, L] indices into the database, padded with -1.
      reranked: [Q, M] the first items in their new order.
    """
    count = reranked.shape[1]
    # Two programs may round products near place M differently: an item that is not
    # among the first M is behind them all the same.
    placed = np.where(labelled >= 0, np.maximum(ranks, count), -1).astype(np.int32)
    if not count:
        return placed
    for row, items, first in zip(placed, labelled, reranked, strict=True):
        order = np.argsort(first)
        found = np.minimum(np.searchsorted(first[order], items), count - 1)
        inside = first[order[found]] == items
        row[inside] = order[found[inside]]
    return placed


def read_rows(
    database: Shaped[Array | np.ndarray, "n d"], items: Int[np.ndarray, "*m"]
) -> Float[Array, "*m d"]:
    """Reads the descriptors of a few items; NaN, which would spread, becomes 0."""
    rows = np.asarray(database[items], np.float32)
    return jnp.asarray(np.where(np.isnan(rows), np.float32(0), rows))
