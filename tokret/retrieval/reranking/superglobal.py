"""SuperGlobal's re-ranking: the first items refined by each other, the query by them.

Shao et al., "Global Features are All You Need for Image Retrieval and Reranking", ICCV
2023; where the paper and the released code differ, this follows the released code.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.reranking.ranking import (
    Count,
    Factor,
    Progress,
    Ranking,
    Top,
    nearest,
    read_rows,
    reorder,
)
from tokret.shapes import Array, Float

_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="k")
def superglobal_scores(
    query: Float[Array, " d"],
    candidates: Float[Array, "m d"],
    beta: Float[Array, ""] | float,
    *,
    k: int,
) -> Float[Array, " m"]:
    """Scores of one query's first M items.

    With s(x, y) = max(x . y, 0) and N(x) the k other candidates nearest to x:

        x' = (x + beta sum over N(x) of s(x, y) y) / (1 + beta sum over N(x) of s(x, y))
        e  = the largest value in each dimension over the k + 1 refined candidates
             with the largest q . x'
        score(x) = (q . x' + e . x') / 2

    Neither x' nor e is normalised. The released code does not clip s at 0.

    Memory: M * (M + k * D) numbers.

    Args:
      query: [D].
      candidates: [M, D].
      beta: weight of the neighbours.
      k: neighbours of each candidate; where there are fewer, all the others.

    Returns:
      [M].
    """
    count = len(candidates)
    others = min(k, count - 1)
    products = _product(candidates, candidates.T)
    products = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, products)
    closest, index = jax.lax.top_k(products, others)
    weights = beta * jnp.maximum(closest, 0)
    added = jnp.einsum(
        "mk,mkd->md", weights, candidates[index], precision=jax.lax.Precision.HIGHEST
    )
    refined = (candidates + added) / (1 + jnp.sum(weights, axis=1, keepdims=True))
    first = _product(refined, query)
    _, best = jax.lax.top_k(first, min(k + 1, count))
    expanded = jnp.max(refined[best], axis=0)
    return (first + _product(refined, expanded)) / 2


def rerank_superglobal(
    ranking: Ranking,
    top: Top = 400,
    k: Count = 9,
    beta: Factor = 0.15,
    *,
    progress: Progress = lambda done: None,
) -> Ranking:
    """Orders the first items of each query by `superglobal_scores`.

    Memory: Q * top indices, and top * (top + k * D) numbers while it runs.

    Args:
      ranking: a query item is no candidate of itself.
      top: M, how many items of each query are re-ranked.
      k: neighbours of each of them, and refined items that expand the query, less one.
      beta: weight of the neighbours.
      progress: called after every query.

    Returns:
      The ranking with its first items re-ranked.
    """
    first = nearest(ranking, top)
    queries = np.asarray(ranking.queries, np.float32)

    def score(query: int) -> Float[Array, " m"]:
        candidates = read_rows(ranking.database, first[1][query])
        return superglobal_scores(jnp.asarray(queries[query]), candidates, beta, k=k)

    return reorder(ranking, first, score, progress)
