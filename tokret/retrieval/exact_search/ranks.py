"""Ranks of labelled items: how many items of the database score higher.

An item comes before another if it scores higher, or the same at a smaller index. There
are two ways to count: comparing every pair, which suits an accelerator, and sorting the
scores that reach the lowest labelled one, which takes a quarter of the time on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.exact_search.blocks import (
    BLOCK,
    Blocks,
    Database,
    device_copies,
    gather_processes,
    limit_pending,
    query_slices,
    stream_blocks,
)
from tokret.retrieval.exact_search.scores import block_scores, queries_like
from tokret.shapes import Array, Int, Shaped


def count_ranks(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database | Blocks,
    labelled: Int[np.ndarray, "q l"],
    block: int = BLOCK,
) -> Int[np.ndarray, "q l"]:
    """Ranks of a few labelled items of each query among the whole database.

    Two passes: the first reads the labelled items' own scores, from the blocks that
    hold them; the second counts the items before each.

    Args:
      queries: [Q, D] descriptors, converted to float32; int8 for an int8 database,
        tables [Q, M, 256] for product codes.
      database: [N, D] descriptors, converted to float32, or int8, whose scores are
        exact int32, or [N, M] uint8 product codes; or `Blocks` of these. Of a
        memory-mapped file a few blocks are in memory at a time.
      labelled: [Q, L] indices into the database, padded with -1.
      block: database rows on a device at once; unused with `Blocks`.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index is outside the database, or only one of queries and database
        is int8.
    """
    if not isinstance(database, Blocks):
        database = stream_blocks(database, block)
    if labelled.size and not -1 <= labelled.min() <= labelled.max() < database.total:
        raise ValueError(
            f"labelled: indices from {labelled.min()} to {labelled.max()}, and the "
            f"database has {database.total} items"
        )
    rows = queries_like(queries, database.dtype)
    items = np.asarray(labelled, np.int32)
    ranks = [
        _count_in(rows[part], database, items[part]) for part in query_slices(len(rows))
    ]
    return np.where(items >= 0, np.concatenate(ranks), np.int32(-1))


def _count_in(
    queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, items: Int[np.ndarray, "q l"]
) -> Int[np.ndarray, "q l"]:
    own = _own_scores(queries, blocks, items)
    rows, own_copies, labelled = map(device_copies, (queries, own, items))
    on_host = blocks.devices[0].platform == "cpu"
    ranks = np.zeros(items.shape, np.int32)
    counts: dict[jax.Device, Array] = {}
    scored: list[tuple[tuple[int, int, int], Array]] = []
    pending: list[Array] = []

    def add_oldest() -> None:
        span, scores = scored.pop(0)
        ranks[:] += count_by_sorting(np.asarray(scores), own, items, *span)

    for number, block in blocks.each(range(len(blocks))):
        device = blocks.device(number)
        span = blocks.start(number), blocks.first(number), blocks.total
        scores = block_scores(rows(device), block)
        if on_host:
            # One block's products are computed while another's are counted.
            scored.append((span, scores))
            if len(scored) > 1:
                add_oldest()
            continue
        count = count_by_comparing(scores, own_copies(device), labelled(device), *span)
        counts[device] = counts[device] + count if device in counts else count
        limit_pending(pending, count, 2 * len(blocks.devices))
    while scored:
        add_oldest()
    for count in counts.values():
        ranks += np.asarray(count)
    return gather_processes(ranks, blocks).sum(axis=0, dtype=np.int32)


def _own_scores(
    queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, items: Int[np.ndarray, "q l"]
) -> Shaped[np.ndarray, "q l"]:
    """The labelled items' scores, each from its block's product."""
    dtype = np.int32 if blocks.dtype == np.int8 else np.float32
    own = np.zeros(items.shape, dtype)
    rows, labelled = device_copies(queries), device_copies(items)
    holder = np.where(items >= 0, items // blocks.rows, -1)
    for number, block in blocks.each(np.unique(holder[holder >= 0]).tolist()):
        device = blocks.device(number)
        scores = block_scores(rows(device), block)
        found = labelled_scores(scores, labelled(device), blocks.start(number))
        own = np.where(holder == number, np.asarray(found), own)
    # Each item's score was read by one process; the others hold 0 there.
    return gather_processes(own, blocks).sum(axis=0, dtype=dtype)


@jax.jit
def labelled_scores(
    scores: Shaped[Array, "q b"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
) -> Shaped[Array, "q l"]:
    """The labelled items' scores [Q, L] in this block; arbitrary for other items."""
    column = jnp.clip(labelled - start, 0, scores.shape[1] - 1)
    return jnp.take_along_axis(scores, column, axis=1)


@jax.jit
def count_by_comparing(
    scores: Shaped[Array, "q b"],
    own: Shaped[Array, "q l"],
    labelled: Int[Array, "q l"],
    start: Int[Array, ""] | int,
    first: Int[Array, ""] | int,
    total: Int[Array, ""] | int,
) -> Int[Array, "q l"]:
    """Counts the items before each labelled item by comparing every pair.

    Of the block's scores [Q, B], which start at item `start`, those from item `first`
    to `total` (exclusive) count; `own` [Q, L] are the labelled items' scores. Returns
    [Q, L] int32; arbitrary where `labelled` is -1.
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


def count_by_sorting(
    scores: Shaped[np.ndarray, "q b"],
    own: Shaped[np.ndarray, "q l"],
    labelled: Int[np.ndarray, "q l"],
    start: int,
    first: int,
    total: int,
) -> Int[np.ndarray, "q l"]:
    """`count_by_comparing` on the host; 0 where `labelled` is -1."""
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
    """One query's counts; `column` is an item's place relative to the row's start."""
    rising = np.sort(row[row >= own.min()])
    above = len(rising) - np.searchsorted(rising, own, "right")
    ties = len(rising) - np.searchsorted(rising, own, "left") - above
    before = above + np.where(column >= len(row), ties, 0)
    tied_inside = np.flatnonzero((column >= 0) & (column < len(row)) & (ties > 1))
    for i in tied_inside:
        before[i] += np.count_nonzero(row[: column[i]] == own[i])
    return before
