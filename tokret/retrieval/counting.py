"""How many items of a block come before each labelled one.

An item comes before another if it scores higher, or the same at a smaller index. Two
forms of one count: every pair compared, which suits an accelerator, and a sort of what
scores as high as any labelled item, which on a CPU takes a quarter of the time.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tokret.shapes import Array, Int, Shaped


@jax.jit
def gather_own(
    scores: Shaped[Array, "q b"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
) -> Shaped[Array, "q l"]:
    """The scores of the labelled items that lie in this block; of others anything.

    Args:
      scores: [Q, B] of the block.
      labelled: [Q, L] indices into the database.
      start: the index of the block's first item.
    """
    column = jnp.clip(labelled - start, 0, scores.shape[1] - 1)
    return jnp.take_along_axis(scores, column, axis=1)


@jax.jit
def compare_all(
    scores: Shaped[Array, "q b"],
    own: Shaped[Array, "q l"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
    first: Int[Array, ""] | int,
    total: Int[Array, ""] | int,
) -> Int[Array, "q l"]:
    """Counts what comes before each labelled item by comparing every pair.

    Args:
      scores: [Q, B] of the block.
      own: [Q, L] the labelled items' scores.
      labelled: [Q, L] their indices into the database, padded with -1.
      start: the index of the block's first item.
      first: the index of the first one that counts.
      total: N, the items of the database; what the block holds beyond does not count.

    Returns:
      [Q, L] int32; of a padded place anything.
    """
    index = start + jnp.arange(scores.shape[1], dtype=jnp.int32)
    exists = (index >= first) & (index < total)

    def count(
        query: tuple[Shaped[Array, " b"], Shaped[Array, " l"], Int[Array, " l"]],
    ) -> Int[Array, " l"]:
        row, mine, item = query
        tie_before = (row == mine[:, None]) & (index < item[:, None])  # [l, b]
        before = ((row > mine[:, None]) | tie_before) & exists
        return jnp.sum(before, axis=1, dtype=jnp.int32)

    # One query at a time: where it is not fused, all of [q, l, b] would be gigabytes.
    return jax.lax.map(count, (scores, own, labelled))


def sort_and_find(
    scores: Shaped[np.ndarray, "q b"],
    own: Shaped[np.ndarray, "q l"],
    labelled: Int[np.ndarray, "q l"],
    start: int,
    first: int,
    total: int,
) -> Int[np.ndarray, "q l"]:
    """`compare_all` by the host's processor, on its own arrays."""
    counts = np.zeros(labelled.shape, np.int32)
    for query, row in enumerate(scores[:, first - start : total - start]):
        known = np.flatnonzero(labelled[query] >= 0)
        if len(known):
            counts[query, known] = _count(
                row, own[query, known], labelled[query, known] - first
            )
    return counts


def _count(
    row: Shaped[np.ndarray, " b"],
    own: Shaped[np.ndarray, " l"],
    column: Int[np.ndarray, " l"],
) -> Int[np.ndarray, " l"]:
    """One query's counts; `column` is where an item would lie if it were in the row."""
    rising = np.sort(row[row >= own.min()])
    above = len(rising) - np.searchsorted(rising, own, "right")
    ties = len(rising) - np.searchsorted(rising, own, "left") - above
    before = above + np.where(column >= len(row), ties, 0)
    tied_inside = np.flatnonzero((column >= 0) & (column < len(row)) & (ties > 1))
    for i in tied_inside:
        before[i] += np.count_nonzero(row[: column[i]] == own[i])
    return before
