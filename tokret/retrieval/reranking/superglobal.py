"""SuperGlobal's re-ranking: the first items refined by each other, the query by them.

Shao et al., "Global Features are All You Need for Image Retrieval and Reranking", ICCV
2023; where the paper and the released code differ, this follows the released code.
"""

import functools

import jax
import jax.numpy as jnp

from tokret.retrieval.reranking.ranking import (
    Count,
    Factor,
    Progress,
    Ranking,
    Top,
    rescore,
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
    """Scores [M] of one query's [D] first M items, the candidates [M, D].

    With s(x, y) = max(x . y, 0) and N(x) the k other candidates nearest to x (or all):

        x' = (x + beta sum over N(x) of s(x, y) y) / (1 + beta sum over N(x) of s(x, y))
        e  = the largest value in each dimension over the k + 1 refined candidates
             with the largest q . x'
        score(x) = (q . x' + e . x') / 2

    Neither x' nor e is normalised. The released code does not clip s at 0.

    Memory: M * (M + k * D) numbers.
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
    """Orders the `top` first items of each query by `superglobal_scores`.

    A query item is no candidate of itself. Memory: Q * top indices, and
    top * (top + k * D) numbers while it runs.
    """
    score = functools.partial(superglobal_scores, beta=beta, k=k)
    return rescore(ranking, top, score, progress)
