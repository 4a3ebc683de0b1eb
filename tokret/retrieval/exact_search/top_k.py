"""The best k items of each query, exactly and with ties by index.

The best k of a block and of the blocks before it are selected on the device; a GPU
selects from several blocks together.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.exact_search.blocks import (
    Blocks,
    Database,
    device_copies,
    gather_processes,
    limit_pending,
    query_slices,
    rows_per_block,
    stream_blocks,
)
from tokret.retrieval.exact_search.scores import EXACT_DIMS, block_scores, queries_like
from tokret.shapes import Array, Int, Shaped

# Scores, falling, and indices into the database.
Lists = tuple[Shaped[np.ndarray, "q k"], Int[np.ndarray, "q k"]]

GROUP = 32  # neighbouring items, of which first only the maximum is compared
# What a GPU selects from together, at most: scores (512 MiB), bytes of blocks (as many
# again are waiting), and blocks, since each number of them is compiled separately.
SCORES, BYTES, BLOCKS = 2**27, 2**31, 16


class Best(NamedTuple):
    """The best items so far of each query."""

    # [Q, k] falling; the lowest number where there are fewer items
    scores: Shaped[Array, "q k"]
    # [Q, k] int32 indices into the database; -1 where there are fewer items
    items: Int[Array, "q k"]


def top_k(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database | Blocks,
    k: int,
    block: int | None = None,
) -> Lists:
    """The best k items of each query, exactly; ties by index.

    Args:
      queries: as for `count_ranks`.
      database: as for `count_ranks`.
      k: how many, 1 to N.
      block: database rows on a device at once; None takes more for few queries. Unused
        with `Blocks`.

    Returns:
      Scores [Q, k], falling, float32 or int32, and int32 indices into the database.

    Raises:
      ValueError: k is not in 1 to N, or only one of queries and database is int8.
    """
    if not isinstance(database, Blocks):
        rows = rows_per_block(len(queries)) if block is None else block
        database = stream_blocks(database, rows)
    if not 1 <= k <= database.total:
        raise ValueError(f"k is {k}, and the database has {database.total} items")
    converted = queries_like(queries, database.dtype)
    found = [
        _best_in(converted[part], database, k) for part in query_slices(len(converted))
    ]
    scores, items = zip(*found, strict=True)
    return np.concatenate(scores), np.concatenate(items)


def _best_in(queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, k: int) -> Lists:
    best = _best_of_each_device(queries, blocks, k)
    # All processes give lists of one shape, also those without a block.
    local = [d for d in blocks.devices if d.process_index == jax.process_index()]
    dtype = np.dtype(np.int32 if blocks.dtype == np.int8 else np.float32)
    scores = np.zeros((len(queries), len(local), k), dtype)
    items = np.full(scores.shape, -1, np.int32)
    for column, device in enumerate(local):
        if device in best:
            scores[:, column], items[:, column] = best[device]
    if len(blocks.devices) == 1:
        return scores[:, 0], items[:, 0]
    lists = (np.moveaxis(gather_processes(x, blocks), 1, 0) for x in (scores, items))
    all_scores, all_items = (x.reshape(len(queries), -1) for x in lists)
    return merge_lists(all_scores, all_items, k)


def _best_of_each_device(
    queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, k: int
) -> dict[jax.Device, Best]:
    """The best items of each of this process's devices in its blocks."""
    rows = device_copies(queries)
    best: dict[jax.Device, Best] = {}
    pending: list[Best] = []
    loaded: dict[jax.Device, list[tuple[int, Array]]] = {}

    def add_loaded(device: jax.Device) -> None:
        numbers, arrays = zip(*loaded.pop(device), strict=True)
        best[device] = add_blocks(
            best.get(device),
            rows(device),
            arrays,
            np.array([blocks.start(number) for number in numbers], np.int32),
            np.array([blocks.first(number) for number in numbers], np.int32),
            blocks.total,
            k=k,
        )
        # A GPU adds many blocks at a time, and only one more set of them may wait.
        rounds = 1 if device.platform == "gpu" else 2
        limit_pending(pending, best[device], rounds * len(blocks.devices))

    for number, block in blocks.each(range(len(blocks))):
        device = blocks.device(number)
        loaded.setdefault(device, []).append((number, block))
        if len(loaded[device]) == blocks_together(len(queries), block, device.platform):
            add_loaded(device)
    for device in list(loaded):
        add_loaded(device)
    return best


def blocks_together(queries: int, block: Array, platform: str) -> int:
    """How many such blocks a device selects from together.

    On a GPU selecting the best of a few thousand scores takes as long as the products
    with a block (docs/performance.md).
    """
    if platform != "gpu":
        return 1
    most = min(BLOCKS, SCORES // max(1, queries * len(block)), BYTES // block.nbytes)
    return max(1, most)


@partial(jax.jit, static_argnames="k")
def add_blocks(
    best: Best | None,
    queries: Shaped[Array, "q ..."],
    blocks: Sequence[Shaped[Array, "b d"]],
    starts: Int[Array | np.ndarray, " n"],
    firsts: Int[Array | np.ndarray, " n"],
    total: Int[Array, ""] | int,
    *,
    k: int,
) -> Best:
    """The best k of earlier blocks and of some more; of equal scores the earlier first.

    `blocks` are in order, each as for `block_scores`, of a multiple of 32 rows. Of each
    the first item's index is in `starts`, and of its first item that counts in
    `firsts`; rows from index `total` on do not count.
    """
    scores = []
    for block, start, first in zip(blocks, starts, firsts, strict=True):
        found = block_scores(queries, block)
        index = start + jnp.arange(len(block), dtype=jnp.int32)
        exists = (index >= first) & (index < total)
        scores.append(jnp.where(exists, found, lowest(found.dtype)))
    offered = jnp.concatenate(scores, axis=1)
    exact = queries.dtype == jnp.int8 and queries.shape[1] <= EXACT_DIMS
    found, column = highest(offered, min(k, offered.shape[1]), exact)
    items = _indices(column, len(blocks[0]), starts, firsts, total)
    return merge_best(best, found, items, k)


def highest(
    offered: Shaped[Array, "q b"], k: int, exact: bool
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """The k highest scores with their columns, ties by column.

    `exact`: whether float32 holds every one of int32 scores.
    """
    # Integers as float32 where that is exact: a CPU selects ten times faster. The
    # lowest integer, which marks missing items, is a power of two.
    wide = offered.astype(jnp.float32) if exact else offered
    found, column = jax.lax.platform_dependent(
        wide, tpu=partial(_direct_top_k, k=k), default=partial(_exact_top_k, k=k)
    )
    return found.astype(offered.dtype), column


def merge_best(
    best: Best | None,
    found: Shaped[Array, "q f"],
    items: Int[Array, "q f"],
    k: int,
) -> Best:
    """The k best of earlier items and of at most k more, of which ties come later."""
    if best is None:
        missing = [(0, 0), (0, k - found.shape[1])]
        return Best(
            jnp.pad(found, missing, constant_values=lowest(found.dtype)),
            jnp.pad(items, missing, constant_values=-1),
        )
    together = (
        jnp.concatenate([best.scores, found], axis=1),
        jnp.concatenate([best.items, items], axis=1),
    )
    return jax.lax.platform_dependent(
        *together,
        tpu=partial(first_by_sort, k=k),
        default=partial(first_by_gather, k=k),
    )


def _indices(
    columns: Int[Array, "q k"],
    rows: int,
    starts: Int[Array | np.ndarray, " n"],
    firsts: Int[Array | np.ndarray, " n"],
    total: Int[Array, ""] | int,
) -> Int[Array, "q k"]:
    """Indices of items by their columns among n blocks of so many rows; -1 if missing.

    Computed, because a TPU reads a whole tile of memory for each number of a gather.
    """
    indices = jnp.full(columns.shape, -1, jnp.int32)
    for number in range(len(starts)):
        row = columns - number * rows
        index = starts[number] + row
        exists = (row >= 0) & (row < rows) & (index >= firsts[number]) & (index < total)
        indices = jnp.where(exists, index, indices)
    return indices


def first_by_gather(
    scores: Shaped[Array, "q a"], items: Int[Array, "q a"], *, k: int
) -> Best:
    """The k highest scores with their items; of equal scores the earlier first."""
    kept, place = jax.lax.top_k(scores, k)
    return Best(kept, jnp.take_along_axis(items, place, axis=1))


def first_by_sort(
    scores: Shaped[Array, "q a"], items: Int[Array, "q a"], *, k: int
) -> Best:
    """`first_by_gather` for a TPU, where gathers read more than the whole block."""
    reverse = jnp.negative if jnp.issubdtype(scores.dtype, jnp.floating) else jnp.invert
    rising, ordered = jax.lax.sort((reverse(scores), items), num_keys=1, is_stable=True)
    return Best(reverse(rising[:, :k]), ordered[:, :k])


def _direct_top_k(
    scores: Shaped[Array, "q b"], *, k: int
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """`jax.lax.top_k`, which a TPU computes in one pass over the scores."""
    best, place = jax.lax.top_k(scores, k)
    return best, place


def _exact_top_k(
    scores: Shaped[Array, "q b"], k: int
) -> tuple[Shaped[Array, "q k"], Int[Array, "q k"]]:
    """`jax.lax.top_k` in steps, so that the costly ones see few scores.

    The best k are in the k groups with the highest maxima: if an item's group were not
    among them, each of k others would hold an item that comes before it. Groups are
    neighbours, and `top_k` puts the first of equals first, so that ties stay in order.
    """
    queries, total = scores.shape
    groups = total // GROUP
    if 2 * k >= groups or total % GROUP:
        best, place = jax.lax.top_k(scores, k)
        return best, place
    grouped = scores.reshape(queries, groups, GROUP)
    _, chosen = _exact_top_k(jnp.max(grouped, axis=2), k)
    chosen = jnp.sort(chosen, axis=1)
    few = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)  # [q, k, group]
    best, place = jax.lax.top_k(few.reshape(queries, k * GROUP), k)
    group = jnp.take_along_axis(chosen, place // GROUP, axis=1)
    return best, group * GROUP + place % GROUP


def merge_lists(
    scores: Shaped[np.ndarray, "q a"], items: Int[np.ndarray, "q a"], k: int
) -> Lists:
    """The best k of lists [Q, A] in any order, ties by index; item -1 is missing."""
    rows = np.arange(len(scores))[:, None]
    # Two stable sorts: by index, then by falling score; missing items come last.
    order = np.argsort(items, axis=1, kind="stable")
    falling = np.where(items < 0, -np.inf, scores.astype(np.float64))
    order = order[rows, np.argsort(-falling[rows, order], axis=1, kind="stable")]
    order = order[:, :k]
    return scores[rows, order], items[rows, order]


def lowest(dtype: np.dtype) -> float | int:
    """The score of a missing item."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    return -jnp.inf if floating else int(jnp.iinfo(dtype).min)
