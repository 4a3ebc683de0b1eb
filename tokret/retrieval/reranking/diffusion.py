"""Diffusion: a query's score spreads over the graph of mutual neighbours.

Iscen et al., "Efficient Diffusion on Region Manifolds: Recovering Small Objects with
Compact CNN Representations", CVPR 2017, with one descriptor an image.
"""

import functools

import jax
import jax.numpy as jnp

from tokret.retrieval.reranking.ranking import (
    Progress,
    Ranking,
    ignore_progress,
    nearest,
    neighbour_graph,
    reorder,
)
from tokret.shapes import Array, Float, Int


@functools.partial(jax.jit, static_argnames=("k", "kq", "iterations"))
def diffused_scores(
    scores: Float[Array, " m"],
    items: Int[Array, " m"],
    near: tuple[Float[Array, "m l"], Int[Array, "m l"]],
    own: Int[Array, ""] | int,
    alpha: Float[Array, ""] | float,
    gamma: Float[Array, ""] | float,
    *,
    k: int,
    kq: int,
    iterations: int,
) -> Float[Array, " m"]:
    """Scores of one query's first M items: f of (I - alpha S) f = y.

    A(i, j) = max(x_i . x_j, 0)^gamma where each is among the k nearest of the other,
    else 0; only the M items' rows and columns are kept, then S = D^-1/2 A D^-1/2 with D
    the sums of what was kept; y = max(q . x_i, 0)^gamma on the first kq items, else 0.
    Conjugate gradient from 0, until the residual is 1e-6 of y or `iterations` are done.

    Memory: about 4 M^2 numbers.

    Args:
      scores: [M] the items' products with the query, falling.
      items: [M] indices into the database.
      near: [M, L] scores and indices of each item's neighbours, falling, itself not
        among them; L is at least k + 1 if `own` is an item.
      own: the item that asks, as if the database were without it; -1 for none.
      alpha: how much comes from neighbours, 0 to less than 1.
      gamma: exponent.
      k: neighbours in the graph.
      kq: neighbours of the query.
      iterations: of conjugate gradient at most.

    Returns:
      [M], 0 for what the query does not reach.
    """
    count = len(items)
    affinity, neighbour = near
    # The first k but `own`, which is not among the items and so finds no column below.
    listed = jnp.cumsum(neighbour != own, axis=1) <= k
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

    def left(f: Float[Array, " m"]) -> Float[Array, " m"]:
        spread = jnp.matmul(graph, root * f, precision=jax.lax.Precision.HIGHEST)
        return f - alpha * root * spread

    solution, _ = jax.scipy.sparse.linalg.cg(left, y, tol=1e-6, maxiter=iterations)
    return solution


def rerank_diffusion(
    ranking: Ranking,
    top: int = 1000,
    k: int = 50,
    kq: int = 10,
    alpha: float = 0.99,
    gamma: float = 3.0,
    iterations: int = 20,
    *,
    progress: Progress = ignore_progress,
) -> Ranking:
    """Orders the first items of each query by `diffused_scores`.

    What the query does not reach stays, in its order, behind what it does.

    Memory: N * (k + 1) neighbours and Q * top indices, with their scores, and about
    4 top^2 numbers while it runs; N * N products are computed, never held.

    Args:
      ranking: what was searched. An item that asks is taken out of the graph, and
        whoever had it as a neighbour gets its next one.
      top: M, how many items of each query are kept of the graph, and ordered anew.
      k: neighbours in the graph.
      kq: neighbours of the query.
      alpha: how much comes from neighbours.
      gamma: exponent of products.
      iterations: of conjugate gradient at most.
      progress: told of every query.

    Returns:
      The ranking with a new head.
    """
    scores, items = nearest(ranking, top)
    alone = ranking.own is not None
    near = neighbour_graph(ranking.database, k + alone)

    def score(query: int) -> Float[Array, " m"]:
        mine = items[query]
        own = -1 if ranking.own is None else int(ranking.own[query])
        return diffused_scores(
            jnp.asarray(scores[query]),
            jnp.asarray(mine),
            (jnp.asarray(near[0][mine]), jnp.asarray(near[1][mine])),
            own,
            alpha,
            gamma,
            k=k,
            kq=kq,
            iterations=iterations,
        )

    return reorder(ranking, (scores, items), score, progress)


def _power(products: Float[Array, "..."], gamma: Float[Array, ""] | float) -> Array:
    return jnp.maximum(products, 0) ** gamma
