"""The best k of all blocks, exactly and ties by index, or nearly so."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.scores import EXACT_DIMS, block_scores
from tokret.shapes import Array, Int, Shaped

GROUP = 32  # neighbours of which first only the best is looked at


class Best(NamedTuple):
    """The best items so far of each query.

    Attributes:
      scores: [Q, k] falling; the lowest number behind what there is.
      items: [Q, k] int32 indices into the database; -1 behind what there is.
    """

    scores: Shaped[Array, "q k"]
    items: Int[Array, "q k"]


@partial(jax.jit, static_argnames=("k", "recall_target"))
def add_blocks(
    best: Best | None,
    queries: Shaped[Array, "q ..."],
    blocks: Sequence[Shaped[Array, "b d"]],
    starts: Int[Array | np.ndarray, " n"],
    firsts: Int[Array | np.ndarray, " n"],
    total: Int[Array, ""] | int,
    *,
    k: int,
    recall_target: float | None = None,
) -> Best:
    """The best k of earlier blocks and of some more.

    Args:
      best: of earlier blocks, if there are any; of equal scores these come first.
      queries: as for `block_scores`.
      blocks: in order, each as for `block_scores`, of a multiple of 32 rows.
      starts: the index of each block's first item.
      firsts: the index of each block's first one that counts.
      total: N, the items of the database; what a block holds beyond does not count.
      k: how many are wanted.
      recall_target: None for exactness; else the share of the best k that
        `jax.lax.approx_max_k` should find (Chern et al., "TPU-KNN", NeurIPS 2022). It
        saves time on a TPU only; a CPU and a GPU find all.
    """
    indices, scores = [], []
    for number, block in enumerate(blocks):
        found = block_scores(queries, block)
        index = starts[number] + jnp.arange(len(block), dtype=jnp.int32)
        exists = (index >= firsts[number]) & (index < total)
        indices.append(jnp.where(exists, index, -1))
        scores.append(jnp.where(exists, found, _lowest(found.dtype)))
    index, offered = jnp.concatenate(indices), jnp.concatenate(scores, axis=1)
    few = min(k, offered.shape[1])
    if recall_target is None:
        found, column = _exact(_as_floats(offered, queries), few)
        found = found.astype(offered.dtype)
    else:
        wide = offered.astype(jnp.float32)
        _, column = jax.lax.approx_max_k(wide, few, recall_target=recall_target)
        # In the order of their own dtype: large integers are equal as float32.
        found, place = jax.lax.top_k(jnp.take_along_axis(offered, column, axis=1), few)
        column = jnp.take_along_axis(column, place, axis=1)
    if best is None:
        missing = [(0, 0), (0, k - few)]
        return Best(
            jnp.pad(found, missing, constant_values=_lowest(found.dtype)),
            jnp.pad(index[column], missing, constant_values=-1),
        )
    together = jnp.concatenate([best.scores, found], axis=1)
    items = jnp.concatenate([best.items, index[column]], axis=1)
    kept, place = jax.lax.top_k(together, k)
    return Best(kept, jnp.take_along_axis(items, place, axis=1))


def _as_floats(
    scores: Shaped[Array, "q b"], queries: Shaped[Array, "q ..."]
) -> Shaped[Array, "q b"]:
    """Integers as float32 where it holds them: a CPU selects these ten times faster.

    The lowest integer, which stands for what is not there, is a power of two.
    """
    held = queries.dtype == jnp.int8 and queries.shape[1] <= EXACT_DIMS
    return scores.astype(jnp.float32) if held else scores


def _exact(
    scores: Shaped[Array, "q b"], k: int
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """`jax.lax.top_k` in steps, the costly ones of which see few scores.

    The best k lie in the k groups with the highest maxima: were an item's group not
    among them, each of k others would hold an item that comes before it. Groups are
    neighbours, and `top_k` puts the first of equals first, so that ties stay in order.
    """
    queries, total = scores.shape
    groups = total // GROUP
    if 2 * k >= groups or total % GROUP:
        best, place = jax.lax.top_k(scores, k)
        return best, place
    grouped = scores.reshape(queries, groups, GROUP)
    _, chosen = _exact(jnp.max(grouped, axis=2), k)
    chosen = jnp.sort(chosen, axis=1)
    few = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)  # [q, k, group]
    best, place = jax.lax.top_k(few.reshape(queries, k * GROUP), k)
    group = jnp.take_along_axis(chosen, place // GROUP, axis=1)
    return best, group * GROUP + place % GROUP


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
