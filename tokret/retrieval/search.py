"""Exact search by dot products, one block of the database at a time.

A rank is a count: how many items score higher, an equal score at a smaller index
counting as higher. So nothing is sorted as a whole, and the database may be longer than
any device's memory. The same order decides `top_k`.

Float32 products of one pair may differ in the last bit between programs and between
block shapes. Therefore one program computes the scores of every block, the last block
is padded to the shape of the others, and an item's own score is read from its block's
product, never computed apart: what is counted always comes from the same program. The
best k are selected from several blocks together on a GPU, by one program for as many.

The blocks are spread over devices, of one process or several. What each finds are
counts and short lists, which are put together at the end: the numbers do not depend on
the devices as long as these are of one kind.

A row of NaN stands for an image that could not be described: it comes after all others.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tokret.retrieval import counting, selection
from tokret.retrieval.blocks import (
    BLOCK,
    Blocks,
    Database,
    Everywhere,
    block_rows,
    of_all_processes,
    stream_blocks,
)
from tokret.retrieval.scores import block_scores, queries_like
from tokret.shapes import Array, Int, Shaped

QUERIES = 1024  # that are asked at once: 64 MiB of scores for each block
# What a GPU selects from together: scores (512 MiB), bytes of blocks (as many again
# wait their turn), and blocks, since each is compiled for itself.
SCORES, HELD, MOST = 2**27, 2**31, 16


def count_ranks(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database,
    labelled: Int[np.ndarray, "q l"],
    block: int = BLOCK,
    devices: Sequence[jax.Device] | None = None,
) -> Int[np.ndarray, "q l"]:
    """Ranks of a few labelled items of each query among the whole database.

    Args:
      queries: [Q, D] descriptors, computed with in float32; int8 for such a database,
        tables [Q, M, 256] for product codes.
      database: [N, D] descriptors, computed with in float32, or int8, whose scores are
        int32 and exact, or [N, M] uint8 product codes; of a memory-mapped file a few
        blocks are in memory at a time.
      labelled: [Q, L] indices into the database, padded with -1.
      block: database rows on a device at once.
      devices: that share the work; None takes all of this process's. With those of
        several processes, every one of these must make the same call.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index lies outside the database, or only one side is int8.
    """
    return count_ranks_in(queries, stream_blocks(database, block, devices), labelled)


def count_ranks_in(
    queries: Shaped[Array | np.ndarray, "q ..."],
    blocks: Blocks,
    labelled: Int[np.ndarray, "q l"],
) -> Int[np.ndarray, "q l"]:
    """`count_ranks` over a database that is cut into blocks already.

    Two passes: the first reads the labelled items' own scores, from the blocks that
    hold them; the second counts what comes before each.

    Args:
      queries: [Q, D] descriptors, as for `count_ranks`.
      blocks: the database.
      labelled: [Q, L] indices into the database, padded with -1.

    Returns:
      [Q, L] int32 ranks from 0; -1 where `labelled` is -1.

    Raises:
      ValueError: an index lies outside the database, or only one side is int8.
    """
    _check_labelled(labelled, blocks.total)
    asked = queries_like(queries, blocks.dtype)
    items = np.asarray(labelled, np.int32)
    ranks = [_count_in(asked[part], blocks, items[part]) for part in _parts(len(asked))]
    return np.where(items >= 0, np.concatenate(ranks), np.int32(-1))


def _count_in(
    queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, items: Int[np.ndarray, "q l"]
) -> Int[np.ndarray, "q l"]:
    own = _own_scores(queries, blocks, items)
    asked, mine, wanted = (Everywhere(array) for array in (queries, own, items))
    on_host = blocks.devices[0].platform == "cpu"
    ranks = np.zeros(items.shape, np.int32)
    counts: dict[jax.Device, Array] = {}
    scored: list[tuple[tuple[int, int, int], Array]] = []
    waiting: list[Array] = []

    def add_oldest() -> None:
        span, scores = scored.pop(0)
        ranks[:] += counting.sort_and_find(np.asarray(scores), own, items, *span)

    for number, block in blocks.each(range(len(blocks))):
        place = blocks.device(number)
        span = blocks.start(number), blocks.first(number), blocks.total
        scores = block_scores(asked[place], block)
        if on_host:
            # One block's products are computed while another's are counted.
            scored.append((span, scores))
            if len(scored) > 1:
                add_oldest()
            continue
        found = counting.compare_all(scores, mine[place], wanted[place], *span)
        counts[place] = counts[place] + found if place in counts else found
        _wait(waiting, found, 2 * len(blocks.devices))
    while scored:
        add_oldest()
    for found in counts.values():
        ranks += np.asarray(found)
    return of_all_processes(ranks, blocks).sum(axis=0, dtype=np.int32)


def _own_scores(
    queries: Shaped[np.ndarray, "q ..."], blocks: Blocks, items: Int[np.ndarray, "q l"]
) -> Shaped[np.ndarray, "q l"]:
    """The labelled items' scores, each from its block's product."""
    dtype = np.int32 if blocks.dtype == np.int8 else np.float32
    own = np.zeros(items.shape, dtype)
    asked, wanted = Everywhere(queries), Everywhere(items)
    holder = np.where(items >= 0, items // blocks.rows, -1)
    for number, block in blocks.each(np.unique(holder[holder >= 0]).tolist()):
        place = blocks.device(number)
        scores = block_scores(asked[place], block)
        found = counting.gather_own(scores, wanted[place], blocks.start(number))
        own = np.where(holder == number, np.asarray(found), own)
    # Each item's score was found by one process; the others hold 0 there.
    return of_all_processes(own, blocks).sum(axis=0, dtype=dtype)


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
    total = scores.shape[1]
    _check_labelled(labelled, total)
    items = np.maximum(labelled, 0)
    own = np.take_along_axis(scores, items, axis=1)
    ranks = counting.sort_and_find(scores, own, labelled, 0, 0, total)
    return np.where(labelled >= 0, ranks, np.int32(-1))


def top_k(
    queries: Shaped[Array | np.ndarray, "q ..."],
    database: Database,
    k: int,
    block: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    recall_target: float | None = None,
) -> tuple[Shaped[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k items of each query, exactly; ties by index.

    Args:
      queries: as for `count_ranks`.
      database: as for `count_ranks`.
      k: how many, 1 to N.
      block: database rows on a device at once; None takes more for few queries.
      devices: that share the work; None takes all of this process's. With those of
        several processes, every one of these must make the same call.
      recall_target: None for exactness; else the share of the best k that a TPU should
        find, faster, by `jax.lax.approx_max_k`. A CPU and a GPU find all of them then,
        in no less time, and ties in any order.

    Returns:
      [Q, k] scores, falling, float32 or int32, and [Q, k] int32 indices into the
      database.

    Raises:
      ValueError: k is not in 1 to N, or only one side is int8.
    """
    rows = block_rows(len(queries)) if block is None else block
    return top_k_in(queries, stream_blocks(database, rows, devices), k, recall_target)


def top_k_in(
    queries: Shaped[Array | np.ndarray, "q ..."],
    blocks: Blocks,
    k: int,
    recall_target: float | None = None,
) -> tuple[Shaped[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """`top_k` over a database that is cut into blocks already.

    Args:
      queries: [Q, D] descriptors, as for `top_k`.
      blocks: the database.
      k: how many, 1 to N.
      recall_target: as for `top_k`.

    Returns:
      [Q, k] scores, falling, and [Q, k] int32 indices into the database.

    Raises:
      ValueError: k is not in 1 to N, or only one side is int8.
    """
    if not 1 <= k <= blocks.total:
        raise ValueError(f"k is {k}, and the database has {blocks.total} items")
    asked = queries_like(queries, blocks.dtype)
    found = [
        _best_in(asked[part], blocks, k, recall_target) for part in _parts(len(asked))
    ]
    scores, items = zip(*found, strict=True)
    return np.concatenate(scores), np.concatenate(items)


def _best_in(
    queries: Shaped[np.ndarray, "q ..."],
    blocks: Blocks,
    k: int,
    recall_target: float | None,
) -> tuple[Shaped[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    best = _best_of_each(queries, blocks, k, recall_target)
    # All processes give lists of one shape, whichever got how many blocks.
    places = [d for d in blocks.devices if d.process_index == jax.process_index()]
    dtype = np.dtype(np.int32 if blocks.dtype == np.int8 else np.float32)
    scores = np.zeros((len(queries), len(places), k), dtype)
    items = np.full(scores.shape, -1, np.int32)
    for column, place in enumerate(places):
        if place in best:
            scores[:, column], items[:, column] = best[place]
    if len(blocks.devices) == 1:
        return scores[:, 0], items[:, 0]
    return selection.merge_lists(
        _in_rows(of_all_processes(scores, blocks)),
        _in_rows(of_all_processes(items, blocks)),
        k,
    )


def _best_of_each(
    queries: Shaped[np.ndarray, "q ..."],
    blocks: Blocks,
    k: int,
    recall_target: float | None,
) -> dict[jax.Device, selection.Best]:
    """What each of this process's devices finds in its blocks."""
    asked = Everywhere(queries)
    best: dict[jax.Device, selection.Best] = {}
    waiting: list[selection.Best] = []
    held: dict[jax.Device, list[tuple[int, Array]]] = {}

    def add_held(place: jax.Device) -> None:
        numbers, arrays = zip(*held.pop(place), strict=True)
        best[place] = selection.add_blocks(
            best.get(place),
            asked[place],
            arrays,
            np.array([blocks.start(number) for number in numbers], np.int32),
            np.array([blocks.first(number) for number in numbers], np.int32),
            blocks.total,
            k=k,
            recall_target=recall_target,
        )
        # On a GPU each adds many; of those that are held, one more set may wait.
        rounds = 1 if place.platform == "gpu" else 2
        _wait(waiting, best[place], rounds * len(blocks.devices))

    for number, block in blocks.each(range(len(blocks))):
        place = blocks.device(number)
        held.setdefault(place, []).append((number, block))
        if len(held[place]) == _at_once(len(queries), block, place.platform):
            add_held(place)
    for place in list(held):
        add_held(place)
    return best


def _at_once(queries: int, block: Array, platform: str) -> int:
    """How many such blocks a device selects from together.

    A GPU takes as long over the best of a few thousand scores as over the products
    with a block (docs/performance.md).
    """
    if platform != "gpu":
        return 1
    most = min(MOST, SCORES // max(1, queries * len(block)), HELD // block.nbytes)
    return max(1, most)


def _in_rows(lists: Shaped[np.ndarray, "p q d k"]) -> Shaped[np.ndarray, "q pdk"]:
    """Puts what all processes and devices found for a query behind one another."""
    return np.moveaxis(lists, 1, 0).reshape(lists.shape[1], -1)


def _wait(waiting: list[Any], newest: Any, most: int) -> None:
    """Lets a few blocks be computed at once: each of them takes a device's memory."""
    waiting.append(newest)
    if len(waiting) > most:
        jax.block_until_ready(waiting.pop(0))


def _parts(queries: int) -> list[slice]:
    return [slice(i, i + QUERIES) for i in range(0, max(1, queries), QUERIES)]


def _check_labelled(labelled: Int[np.ndarray, "q l"], total: int) -> None:
    """-1 pads; any other index outside the database is the caller's mistake."""
    if labelled.size and not -1 <= labelled.min() <= labelled.max() < total:
        raise ValueError(
            f"labelled indices run from {labelled.min()} to {labelled.max()}, and the "
            f"database has {total} items"
        )
