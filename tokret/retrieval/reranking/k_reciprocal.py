"""k-reciprocal encoding: items are near if they have the same near items.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR
2017. For each query the gallery is its first M items; M = N is the published method
with one probe at a time: other queries have no influence.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec

from tokret.retrieval.reranking.ranking import Count, Progress, Ranking, Top, rescore
from tokret.shapes import Array, Bool, Float, Int


@functools.partial(jax.jit, static_argnames=("k1", "k2"))
def k_reciprocal_distances(
    query: Float[Array, " d"],
    candidates: Float[Array, "m d"],
    weight: Float[Array, ""] | float,
    *,
    k1: int,
    k2: int,
) -> Float[Array, " m"]:
    """Final distances [M] of one query [D] to its first M items; smaller is better.

    Nodes are the query and the candidates [M, D], all of length 1, d(i, j) =
    |x_i - x_j|^2 divided by the largest in row i, as in the released code; N(i, k) is i
    itself and the k nearest others, R(i, k) those j in N(i, k) with i in N(j, k). R*(i)
    is R(i, k1) and, for each j in it, R(j, k1 / 2) where at least two thirds of that
    are in R(i, k1). V(i, j) = exp(-d(i, j)) on R*(i), scaled to sum 1 (released code),
    then averaged over the k2 nearest of i, itself among them (local query expansion).
    With `weight`, lambda in the paper, from 0 to 1, the distance is

        (1 - weight) (1 - sum min(V(q), V(i)) / sum max(V(q), V(i))) + weight d(q, i).

    Memory: about 6 (M + 1)^2 numbers.
    """
    nodes = jnp.concatenate([query[None], candidates])
    count = len(nodes)
    distance = _distances(nodes)
    # A node is its own nearest, also where another one equals it.
    ranked = jnp.where(jnp.eye(count, dtype=bool), -1, distance)
    largest = jnp.max(distance, axis=1, keepdims=True)
    distance = distance / jnp.where(largest > 0, largest, 1)
    _, order = jax.lax.top_k(-ranked, min(max(k1 + 1, k2), count))
    # Otherwise XLA for CPU sorts whole rows, since only parts of the lists are used.
    order = jax.lax.optimization_barrier(order)

    neighbours, half = order[:, : k1 + 1], order[:, : round(k1 / 2) + 1]
    member = _expanded(_reciprocal(neighbours), neighbours, _reciprocal(half), half)
    code = jnp.where(member, jnp.exp(-distance), 0)
    code = code / jnp.sum(code, axis=1, keepdims=True)

    def averaged(row: Int[Array, " k"]) -> Float[Array, " n"]:
        return jnp.mean(code[row], axis=0)

    # One node at a time: all the codes of all neighbours would be [n, k2, n].
    code = jax.lax.map(averaged, order[:, :k2])
    shared = jnp.sum(jnp.minimum(code[0], code[1:]), axis=1)
    either = jnp.sum(jnp.maximum(code[0], code[1:]), axis=1)
    return (1 - weight) * (1 - shared / either) + weight * distance[0, 1:]


def rerank_k_reciprocal(
    ranking: Ranking,
    top: Top = 500,
    k1: Count = 20,
    k2: Count = 6,
    lambda_: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.3,
    *,
    progress: Progress = lambda done: None,
) -> Ranking:
    """Orders the `top` first items of each query by `k_reciprocal_distances`.

    `lambda_` is the weight of the plain distance; a query item is no candidate of
    itself. Memory: Q * top indices, and about 6 top^2 + top * D numbers while it runs.
    """

    def score(query: Float[Array, " d"], near: Float[Array, "m d"]) -> Array:
        return -k_reciprocal_distances(query, near, lambda_, k1=k1, k2=k2)

    return rescore(ranking, top, score, progress)


def _distances(nodes: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """Squared Euclidean distances."""
    squares = jnp.sum(jnp.square(nodes), axis=1)
    products = jnp.matmul(nodes, nodes.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(squares[:, None] + squares[None] - 2 * products, 0)


def _reciprocal(neighbours: Int[Array, "n k"]) -> Bool[Array, "n n"]:
    """Whether two nodes are in each other's lists."""
    count = len(neighbours)
    listed = jnp.zeros((count, count), bool)
    listed = listed.at[jnp.arange(count)[:, None], neighbours].set(True)
    return listed & listed.T


def _expanded(
    member: Bool[Array, "n n"],
    neighbours: Int[Array, "n k"],
    half_member: Bool[Array, "n n"],
    half: Int[Array, "n h"],
) -> Bool[Array, "n n"]:
    """R* from R(., k1), the lists it is in, R(., k1 / 2) and the lists that is in."""

    def expand(row: tuple[Bool[Array, " n"], Int[Array, " k"]]) -> Bool[Array, " n"]:
        mine, listed = row
        theirs = half[listed]  # [k, h]: the neighbours' lists
        mutual = half_member[listed[:, None], theirs]
        overlap = jnp.sum(mutual & mine[theirs], axis=1)
        size = jnp.sum(mutual, axis=1)
        joins = mine[listed] & (3 * overlap >= 2 * size)
        return mine.at[theirs].max(mutual & joins[:, None])

    return jax.lax.map(expand, (member, neighbours))
