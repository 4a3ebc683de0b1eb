"""Diffusion: a query's score spreads over the graph of mutual neighbours.

Iscen et al., "Efficient Diffusion on Region Manifolds: Recovering Small Objects with
Compact CNN Representations", CVPR 2017, with one descriptor an image.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec

from tokret.retrieval.reranking.ranking import (
    Count,
    Factor,
    Progress,
    Ranking,
    Top,
    nearest,
    neighbour_graph,
    reorder,
)
from tokret.shapes import Array, Float, Int


@functools.partial(jax.jit, static_argnames=("k", "kq", "iterations"))
def diffused_scores(
    scores: Float[Array, " m"],
    items: Int[Array, " m"],
    neighbours: tuple[Float[Array, "m l"], Int[Array, "m l"]],
    query_item: Int[Array, ""] | int,
    alpha: Float[Array, ""] | float,
    gamma: Float[Array, ""] | float,
    *,
    k: int,
    kq: int,
    iterations: int,
) -> Float[Array, " m"]:
    """Scores [M] of one query's first M items: f of (I - alpha S) f = y.

    A(i, j) = max(x_i . x_j, 0)^gamma where each is among the k nearest of the other,
    else 0; only the M items' rows and columns are kept, then S = D^-1/2 A D^-1/2 with D
    the sums of the kept rows; y = max(q . x_i, 0)^gamma on the first kq items, else 0.
    Conjugate gradient from 0, until the residual is 1e-6 of y or `iterations` are done.
    Items that the query does not reach score 0. Memory: about 4 M^2 numbers.

    Args:
      scores: [M] the items' products with the query, falling.
      items: [M] indices into the database.
      neighbours: [M, L] scores and indices of each item's neighbours, falling, without
        itself; L is at least k + 1 if `query_item` is an item.
      query_item: the item that is the query, as if the database did not have it; -1 for
        none.
      alpha: fraction of the score that comes from neighbours, 0 to less than 1.
      gamma: exponent.
      k: neighbours in the graph.
      kq: neighbours of the query.
      iterations: of conjugate gradient at most.
    """
    count = len(items)
    affinity, neighbour = neighbours
    # The first k without `query_item`, which is not in `items` and so gets no column.
    listed = jnp.cumsum(neighbour != query_item, axis=1) <= k
    order = jnp.argsort(items)
    place = jnp.searchsorted(items[order], neighbour)
    column = order[jnp.minimum(place, count - 1)]
    kept = listed & (items[column] == neighbour)
    weights = jnp.where(kept, _power(affinity, gamma), 0)
    graph = jnp.zeros((count, count), scores.dtype)
    graph = graph.at[jnp.arange(count)[:, None], column].max(weights)
    graph = jnp.minimum(graph, graph.T)

    degree = jnp.sum(graph, axis=1)
    root = jnp.where(degree > 0, jax.lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
    y = jnp.where(jnp.arange(count) < kq, _power(scores, gamma), 0)

    def left_side(f: Float[Array, " m"]) -> Float[Array, " m"]:
        spread = jnp.matmul(graph, root * f, precision=jax.lax.Precision.HIGHEST)
        return f - alpha * root * spread

    solution, _ = jax.scipy.sparse.linalg.cg(left_side, y, tol=1e-6, maxiter=iterations)
    return solution


def rerank_diffusion(
    ranking: Ranking,
    top: Top = 1000,
    k: Count = 50,
    kq: Count = 10,
    alpha: Annotated[float, msgspec.Meta(ge=0, le=0.9999)] = 0.99,
    gamma: Factor = 3.0,
    iterations: Count = 20,
    *,
    progress: Progress = lambda done: None,
) -> Ranking:
    """Orders the `top` first items of each query by `diffused_scores`.

    Items that the query does not reach stay, in their order, behind the others. A query
    item is removed from the graph, and the items that had it as a neighbour get their
    next one.

    Memory: N * (k + 1) neighbours and Q * top indices, with their scores, and about
    4 top^2 numbers while it runs; N * N products are computed, never held.
    """
    scores, items = nearest(ranking, top)
    own = ranking.query_items
    affinities, neighbours = neighbour_graph(ranking.database, k + (own is not None))

    def score(query: int) -> Float[Array, " m"]:
        first = items[query]
        return diffused_scores(
            jnp.asarray(scores[query]),
            jnp.asarray(first),
            (jnp.asarray(affinities[first]), jnp.asarray(neighbours[first])),
            -1 if own is None else int(own[query]),
            alpha,
            gamma,
            k=k,
            kq=kq,
            iterations=iterations,
        )

    return reorder(ranking, (scores, items), score, progress)


def _power(products: Float[Array, "..."], gamma: Float[Array, ""] | float) -> Array:
    return jnp.maximum(products, 0) ** gamma
