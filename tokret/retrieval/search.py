"""Exact search by dot products, one block of the database at a time.

A rank is a count: how many items score higher, an equal score at a smaller index
counting as higher. So nothing is sorted, and the database may be longer than any
device's memory. The same order decides `top_k`.

Float32 products of one pair may differ in the last bit between programs and between
block shapes. Therefore one program computes the scores of every block, the last block
is padded to the shape of the others, and an item's own score is read from its block's
product, never computed apart: what is compared always comes from the same program.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tokret.shapes import Array, Float, Int, Shaped

BLOCK = 8192
# XLA's CPU product treats whole vectors of columns alike and a remainder by other code:
# in multiples of this, it gives the same scores for blocks of any size.
ALIGNMENT = 128


@dataclass(frozen=True)
class Blocks:
    """A database cut into blocks of one shape.

    Attributes:
      total: N, its number of rows.
      rows: rows of each block; the last one ends with rows of zeros.
      load: gives block i as [rows, D] float32 on the device.
    """

    total: int
    rows: int
    load: Callable[[int], Array]

    def __len__(self) -> int:
        """The number of blocks."""
        return -(-self.total // self.rows)


def stream_blocks(
    database: Shaped[Array | np.ndarray, "n d"], block: int = BLOCK
) -> Blocks:
    """Blocks that are read, and moved to the device, each time they are asked for.

    Args:
      database: [N, D] descriptors; a memory-mapped file stays on the disk.
      block: rows of a block, rounded up to a multiple of 128 and never much over N.
    """
    total = len(database)
    rows = _aligned(max(1, min(block, total)))

    def load(number: int) -> Array:
        start = number * rows
        part = np.asarray(database[start : start + rows], np.float32)
        return jnp.asarray(np.pad(part, ((0, rows - len(part)), (0, 0))))

    return Blocks(total, rows, load)


def hold_blocks(
    database: Shaped[Array | np.ndarray, "n d"], block: int = BLOCK
) -> Blocks:
    """Blocks that all stay on the device, for a database that is passed many times.

    Args:
      database: [N, D] descriptors.
      block: rows of a block, rounded up to a multiple of 128 and never much over N.
    """
    streamed = stream_blocks(database, block)
    held = [streamed.load(number) for number in range(len(streamed))]
    return Blocks(streamed.total, streamed.rows, held.__getitem__)


def count_ranks(
    queries: Shaped[Array | np.ndarray, "q d"],
    database: Shaped[Array | np.ndarray, "n d"],
    labelled: Int[np.ndarray, "q l"],
    block: int = BLOCK,
) -> Int[np.ndarray, "q l"]:
    """Ranks of a few labelled items of each query among the whole database.

    Args:
      queries: [Q, D] descriptors, computed with in float32.
      database: [N, D] descriptors, computed with in float32; of a memory-mapped file
        one block is in memory at a time.
      labelled: [Q, L] indices into the database, padded with -1.
      block: database rows on the device at once.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index lies outside the database.
    """
    return count_ranks_in(queries, stream_blocks(database, block), labelled)


def count_ranks_in(
    queries: Shaped[Array | np.ndarray, "q d"],
    blocks: Blocks,
    labelled: Int[np.ndarray, "q l"],
) -> Int[np.ndarray, "q l"]:
    """`count_ranks` over a database that is cut into blocks already.

    Two passes: the first reads the labelled items' own scores, from the few blocks
    that hold them; the second counts what comes before each.

    Args:
      queries: [Q, D] descriptors, computed with in float32.
      blocks: the database.
      labelled: [Q, L] indices into the database, padded with -1.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index lies outside the database.
    """
    _check_labelled(labelled, blocks.total)
    asked = jnp.asarray(queries, jnp.float32)
    items = jnp.asarray(labelled, jnp.int32)
    own = jnp.zeros(items.shape, jnp.float32)
    for number in np.unique(labelled[labelled >= 0] // blocks.rows).tolist():
        scores = _block_scores(asked, blocks.load(number))
        own = _gather_own(scores, own, items, number * blocks.rows)
    ranks = jnp.zeros(items.shape, jnp.int32)
    for number in range(len(blocks)):
        scores = _block_scores(asked, blocks.load(number))
        ranks = _add_before(
            ranks, scores, own, items, number * blocks.rows, blocks.total
        )
    return np.where(labelled >= 0, np.asarray(ranks), np.int32(-1))


def count_ranks_of_scores(
    scores: Shaped[np.ndarray, "q n"], labelled: Int[np.ndarray, "q l"]
) -> Int[np.ndarray, "q l"]:
    """`count_ranks` where the scores are known, compared in their own precision.

    Args:
      scores: [Q, N] numbers, larger is better.
      labelled: [Q, L] indices into the database, padded with -1.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index lies outside the database.
    """
    _check_labelled(labelled, scores.shape[1])
    ranks = np.full(labelled.shape, -1, np.int32)
    for (query, column), item in np.ndenumerate(labelled):
        if item >= 0:
            row = scores[query]
            ties_before = np.count_nonzero(row[:item] == row[item])
            ranks[query, column] = np.count_nonzero(row > row[item]) + ties_before
    return ranks


def top_k(
    queries: Shaped[Array | np.ndarray, "q d"],
    database: Shaped[Array | np.ndarray, "n d"],
    k: int,
    block: int = BLOCK,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k items of each query, exactly; ties by index.

    Args:
      queries: [Q, D] descriptors, computed with in float32.
      database: [N, D] descriptors, computed with in float32; of a memory-mapped file
        one block is in memory at a time.
      k: how many, 1 to N.
      block: database rows on the device at once.

    Returns:
      [Q, k] float32 scores, falling, and [Q, k] int32 indices into the database.

    Raises:
      ValueError: k is not in 1 to N.
    """
    if not 1 <= k <= len(database):
        raise ValueError(f"k is {k}, and the database has {len(database)} items")
    blocks = stream_blocks(database, block)
    asked = jnp.asarray(queries, jnp.float32)
    best = jnp.full((len(queries), k), -jnp.inf)
    items = jnp.full((len(queries), k), -1, jnp.int32)
    for number in range(len(blocks)):
        scores = _block_scores(asked, blocks.load(number))
        best, items = _merge_best(
            best, items, scores, number * blocks.rows, blocks.total
        )
    return np.asarray(best), np.asarray(items)


def _aligned(rows: int) -> int:
    return -(-rows // ALIGNMENT) * ALIGNMENT


def _check_labelled(labelled: Int[np.ndarray, "q l"], total: int) -> None:
    """-1 pads; any other index outside the database is the caller's mistake."""
    if labelled.size and not -1 <= labelled.min() <= labelled.max() < total:
        raise ValueError(
            f"labelled indices run from {labelled.min()} to {labelled.max()}, and the "
            f"database has {total} items"
        )


@jax.jit
def _block_scores(
    queries: Float[Array, "q d"], block: Float[Array, "b d"]
) -> Float[Array, "q b"]:
    return jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _gather_own(
    scores: Float[Array, "q b"],
    own: Float[Array, "q l"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
) -> Float[Array, "q l"]:
    """Fills in the own scores of the labelled items that lie in this block."""
    column = labelled - start
    inside = (column >= 0) & (column < scores.shape[1])
    gathered = jnp.take_along_axis(scores, jnp.where(inside, column, 0), axis=1)
    return jnp.where(inside, gathered, own)


@jax.jit
def _add_before(
    ranks: Int[Array, "q l"],
    scores: Float[Array, "q b"],
    own: Float[Array, "q l"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
    total: Int[Array, ""] | int,
) -> Int[Array, "q l"]:
    """Adds how many of this block's items come before each labelled one."""
    index = start + jnp.arange(scores.shape[1], dtype=jnp.int32)
    exists = index < total

    def count(
        query: tuple[Float[Array, " b"], Float[Array, " l"], Int[Array, " l"]],
    ) -> Int[Array, " l"]:
        row, mine, item = query
        tie_before = (row == mine[:, None]) & (index < item[:, None])  # [l, b]
        before = ((row > mine[:, None]) | tie_before) & exists
        return jnp.sum(before, axis=1, dtype=jnp.int32)

    # One query at a time: XLA for CPU would store all of [q, l, b], gigabytes.
    return ranks + jax.lax.map(count, (scores, own, labelled))


@jax.jit
def _merge_best(
    best: Float[Array, "q k"],
    items: Int[Array, "q k"],
    scores: Float[Array, "q b"],
    start: Int[Array, ""] | int,
    total: Int[Array, ""] | int,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The best k of what was best before and of this block.

    `jax.lax.top_k` puts the first of equal values first: earlier blocks stand in front,
    so ties stay in the order of their indices.
    """
    index = start + jnp.arange(scores.shape[1], dtype=jnp.int32)
    scores = jnp.where(index < total, scores, -jnp.inf)
    index = jnp.broadcast_to(jnp.where(index < total, index, -1), scores.shape)
    best, position = jax.lax.top_k(
        jnp.concatenate([best, scores], axis=1), best.shape[1]
    )
    items = jnp.concatenate([items, index], axis=1)
    return best, jnp.take_along_axis(items, position, axis=1)
