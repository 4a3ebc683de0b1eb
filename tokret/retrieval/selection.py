"""The best k of a block's scores, exactly and ties by index, or nearly so."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tokret.shapes import Array, Int, Shaped

GROUP = 32  # neighbours of which first only the best is looked at


@partial(jax.jit, static_argnames=("k", "recall_target"))
def best_of_block(
    scores: Shaped[Array, "q b"],
    start: Int[Array, ""] | int,
    total: Int[Array, ""] | int,
    *,
    k: int,
    recall_target: float | None = None,
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """The best k items of a block.

    Args:
      scores: [Q, B] of the block, B a multiple of 32.
      start: the index of the block's first item.
      total: N, the items of the database; what the block holds beyond is worst.
      k: how many, at most B.
      recall_target: None for exactness; else the share of the best k that
        `jax.lax.approx_max_k` should find (Chern et al., "TPU-KNN", NeurIPS 2022). It
        saves time on a TPU only; a CPU and a GPU find all.

    Returns:
      [Q, k] scores, falling, and [Q, k] int32 indices into the database, ties by index;
      behind what there is, the lowest score and -1.
    """
    index = start + jnp.arange(scores.shape[1], dtype=jnp.int32)
    exists = index < total
    scores = jnp.where(exists, scores, _lowest(scores.dtype))
    if recall_target is None:
        best, column = _exact(scores, k)
    else:
        wide = scores.astype(jnp.float32)
        _, column = jax.lax.approx_max_k(wide, k, recall_target=recall_target)
        best = jnp.take_along_axis(scores, column, axis=1)
    return best, jnp.where(exists, index, -1)[column]


def _exact(
    scores: Shaped[Array, "q b"], k: int
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """`jax.lax.top_k` in two steps, of which the costly one sees few scores.

    The best k lie in the k groups with the highest maxima: were an item's group not
    among them, each of k others would hold an item that comes before it. Groups are
    neighbours, and `top_k` puts the first of equals first, so that ties stay in order.
    """
    queries, total = scores.shape
    groups = total // GROUP
    if 2 * k >= groups:
        best, place = jax.lax.top_k(scores, k)
        return best, place
    grouped = scores.reshape(queries, groups, GROUP)
    _, chosen = jax.lax.top_k(jnp.max(grouped, axis=2), k)
    chosen = jnp.sort(chosen, axis=1)
    few = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)  # [q, k, group]
    best, place = jax.lax.top_k(few.reshape(queries, k * GROUP), k)
    group = jnp.take_along_axis(chosen, place // GROUP, axis=1)
    return best, group * GROUP + place % GROUP


@partial(jax.jit, static_argnames="k")
def merge_best(
    best: tuple[Shaped[Array, "q a"], Int[Array, "q a"]],
    more: tuple[Shaped[Array, "q b"], Int[Array, "q b"]],
    *,
    k: int,
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """The best k of two lists; of equal scores those of the first list come first.

    Args:
      best: [Q, A] scores, falling, and indices.
      more: [Q, B] the same, of later items.
      k: how many, at most A + B.
    """
    scores = jnp.concatenate([best[0], more[0]], axis=1)
    items = jnp.concatenate([best[1], more[1]], axis=1)
    kept, place = jax.lax.top_k(scores, k)
    return kept, jnp.take_along_axis(items, place, axis=1)


def merge_lists(
    scores: Shaped[np.ndarray, "q a"], items: Int[np.ndarray, "q a"], k: int
) -> tuple[Shaped[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k of lists in any order, ties by index.

    Args:
      scores: [Q, A].
      items: [Q, A] indices; -1 for nothing.
      k: how many, at most the items that there are.
    """
    rows = np.arange(len(scores))[:, None]
    # Two stable sorts: by index, then by falling score; nothing comes last.
    order = np.argsort(items, axis=1, kind="stable")
    falling = np.where(items < 0, -np.inf, scores.astype(np.float64))
    order = order[rows, np.argsort(-falling[rows, order], axis=1, kind="stable")]
    order = order[:, :k]
    return scores[rows, order], items[rows, order]


def _lowest(dtype: np.dtype) -> float | int:
    floating = jnp.issubdtype(dtype, jnp.floating)
    return -jnp.inf if floating else int(jnp.iinfo(dtype).min)
