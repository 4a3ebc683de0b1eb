"""Descriptors averaged with their neighbours: queries, or the whole database."""

from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.layers import l2_normalise
from tokret.retrieval.reranking.ranking import (
    Count,
    Factor,
    Ranking,
    nearest,
    neighbour_graph,
    read_rows,
)
from tokret.shapes import Array, Float, Int, Shaped

ROWS = 1024  # that are averaged with their neighbours at once
Weighting = Literal["rank", "equal"]


@jax.jit
def add_neighbours(
    rows: Float[Array, "b d"],
    neighbours: Float[Array, "b n d"],
    weights: Float[Array, "b n"],
) -> Float[Array, "b d"]:
    """Adds weighted neighbours to each row, whose own weight is 1, and normalises.

    Returns [B, D] of length 1; zeros where the sum is zeros.
    """
    total = rows + jnp.einsum(
        "bn,bnd->bd", weights, neighbours, precision=jax.lax.Precision.HIGHEST
    )
    return l2_normalise(total)


def expand_queries(ranking: Ranking, n: Count = 10, alpha: Factor = 3.0) -> Ranking:
    """Alpha query expansion: q' = q + sum over the first n of (q . x)^alpha x.

    A query has the weight (q . q)^alpha = 1; a negative product counts as 0. With
    alpha = 0 it is the plain average. The database stays as it is, and a query item is
    no neighbour of itself. Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval
    with No Human Annotation", TPAMI 2019.

    Memory: Q * (D + n) numbers, and 1024 * n * D while it runs.
    """
    scores, items = nearest(ranking, n)
    weights = np.maximum(scores, 0) ** alpha
    queries = _with_neighbours(ranking.queries, ranking.database, items, weights)
    return replace(ranking, queries=queries)


def augment_database(
    ranking: Ranking, n: Count = 10, weighting: Weighting = "rank"
) -> Ranking:
    """Database-side augmentation: each item is added to its n nearest other items.

    "equal": every weight is 1, as in Arandjelovic and Zisserman, "Three things
    everyone should know to improve object retrieval", CVPR 2012. "rank": of
    the k = n + 1 descriptors that are added the r-th has the weight (k - r) / k, the
    item itself r = 0, as in Gordo et al., "End-to-end Learning of Deep Visual
    Representations for Image Retrieval", IJCV 2017. Queries stay as they are.

    Memory: N * (D + n) numbers, the new database among them, and 1024 * n * D while it
    runs; N * N products are computed, never held.
    """
    _, items = neighbour_graph(ranking.database, n)
    k = items.shape[1] + 1
    falling = (k - np.arange(1, k, dtype=np.float32)) / k
    row = falling if weighting == "rank" else np.ones(k - 1, np.float32)
    weights = np.broadcast_to(row, items.shape)
    database = _with_neighbours(ranking.database, ranking.database, items, weights)
    return replace(ranking, database=database)


def _with_neighbours(
    rows: Shaped[Array | np.ndarray, "b d"],
    database: Shaped[Array | np.ndarray, "n d"],
    items: Int[np.ndarray, "b k"],
    weights: Float[np.ndarray, "b k"],
) -> Float[np.ndarray, "b d"]:
    """`add_neighbours`, given their indices, in blocks of rows."""
    added = np.empty((len(items), rows.shape[1]), np.float32)
    for start in range(0, len(items), ROWS):
        part = slice(start, start + ROWS)
        added[part] = add_neighbours(
            jnp.asarray(rows[part], jnp.float32),
            read_rows(database, items[part]),
            jnp.asarray(weights[part], jnp.float32),
        )
    return added
