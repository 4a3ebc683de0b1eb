"""A database that is held on the devices for many searches, and grows.

Blocks have a few sizes, and the last one is padded to a power of two, so that one
program for each size serves a database of any number of rows, and any filter: an array
beside each block has the index of each row, or -1 where it must not be found.

Searching for several queries together gives the scores of searching for each alone, to
the last bit, where the device is a CPU.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.exact_search.blocks import (
    ALIGNMENT,
    ConcatenatedDatabase,
    Database,
    aligned_empty,
    device_copies,
    limit_pending,
)
from tokret.retrieval.exact_search.scores import EXACT_DIMS, block_scores, queries_like
from tokret.retrieval.exact_search.top_k import (
    Best,
    Lists,
    highest,
    lowest,
    merge_best,
    merge_lists,
)
from tokret.shapes import Array, Bool, Float, Int, Shaped

# Rows of a block. The first are as long as possible, since starting programs takes
# time; padding the last to a power of two then computes few rows for nothing.
LONG, SHORT = 65536, 8192
QUERIES = 64  # scored together
READ = 1024  # rows copied at a time
READERS = 2  # blocks that are read at the same time
LEAST = 128  # items that are selected: fewer take as long, and one program serves all
# A filter of fewer rows than this fraction copies them instead of scoring all.
GATHERED = 1 / 32
# Two float32 sums of the same products of unit vectors differ by less.
ROUNDING = 2e-5


@dataclasses.dataclass(frozen=True)
class HeldBlock:
    """Some rows of a database."""

    load: Callable[[], Shaped[Array, "b d"]]  # gives them on their device
    size: int  # rows of the array; those after the first `count` are zeros
    first: int  # index of the first row
    count: int  # rows that exist
    device: jax.Device
    items: Int[Array, " b"]  # of each row its index; -1 of those that do not exist
    # Reads some rows alone, by their numbers in the block; None: all are held.
    read: Callable[[Int[np.ndarray, " n"]], Shaped[np.ndarray, "n d"]] | None = None


@dataclasses.dataclass(frozen=True)
class HeldDatabase:
    """Rows [N, D] in blocks on the devices; larger copies have the same blocks."""

    dims: int  # D
    dtype: np.dtype  # float32, bfloat16 or int8
    blocks: tuple[HeldBlock, ...] = ()

    def __len__(self) -> int:
        """N."""
        return self.blocks[-1].first + self.blocks[-1].count if self.blocks else 0

    def extended(self, more: Database, *, hold: bool = True) -> "HeldDatabase":
        """Returns a database with more rows, with the same blocks but the last.

        Args:
          more: [M, D] of the same dtype.
          hold: whether its rows are read now, once; else whenever a search needs them,
            and the database must not be extended again.
        """
        blocks, start = list(self.blocks), len(self)
        pieces = [more]
        if hold and blocks and blocks[-1].count < SHORT and len(more):
            tail = blocks.pop()
            start = tail.first
            pieces = [np.asarray(tail.load())[: tail.count], more]
        together = ConcatenatedDatabase(pieces, self.dtype)
        for begin, size in _cut(len(together)):
            count = min(size, len(together) - begin)
            device = jax.local_devices()[len(blocks) % jax.local_device_count()]
            load = partial(_load, together, begin, count, size, device)
            read = None if hold else partial(_read, together, begin)
            own = np.arange(start + begin, start + begin + count, dtype=np.int32)
            items = _padded(own, size, device)
            first = start + begin
            blocks.append(HeldBlock(load, size, first, count, device, items, read))
        if hold:
            kept = len(self.blocks) - (start < len(self))
            blocks[kept:] = _in_memory(blocks[kept:])
        return dataclasses.replace(self, blocks=tuple(blocks))

    def take(self, items: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "n d"]:
        """Copies rows by their indices."""
        found = np.empty((len(items), self.dims), self.dtype)
        firsts = np.array([block.first for block in self.blocks])
        numbers = np.searchsorted(firsts, items, side="right") - 1
        for number in np.unique(numbers).tolist():
            block, here = self.blocks[number], numbers == number
            if block.read is not None:
                found[here] = block.read(items[here] - block.first)
                continue
            rows: Any = block.load()
            if block.device.platform == "cpu":
                rows = np.asarray(rows)  # not a copy; of another only some come back
            found[here] = np.asarray(rows[items[here] - block.first])
        return found

    def search(
        self,
        queries: Shaped[np.ndarray, "q d"],
        k: int,
        chosen: Bool[np.ndarray, " n"] | None = None,
    ) -> Lists:
        """The best k rows of each query, exactly; ties by index.

        Args:
          queries: float32 of length 1, or int8 for int8 rows.
          k: how many.
          chosen: the rows among which to search; None: all.

        Returns:
          Scores [Q, k], falling, float32 or int32, and int32 indices; -1 where there
          are fewer rows.
        """
        converted = queries_like(queries, self.dtype)
        found = [
            self._search_some(converted[start : start + QUERIES], k, chosen)
            for start in range(0, len(converted), QUERIES)
        ]
        scores, items = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(items)

    def _search_some(
        self,
        queries: Shaped[np.ndarray, "q d"],
        k: int,
        chosen: Bool[np.ndarray, " n"] | None,
    ) -> Lists:
        if len(queries) == 1 or queries.dtype == np.int8 or not self._on_cpu:
            scores, items = self._select(queries, k, chosen)
            return scores[:, :k], items[:, :k]
        # Products of several queries are rounded otherwise than those of one.
        rough, candidates = self._select(queries, k + 16, chosen)
        scores = np.full((len(queries), k), lowest(np.dtype(np.float32)), np.float32)
        items = np.full((len(queries), k), -1, np.int32)
        for row, query in enumerate(queries):
            ours = self._rescore(query[None], candidates[row], k)
            complete = candidates[row, -1] < 0
            if not complete and rough[row, -1] + ROUNDING >= ours[0][0, -1]:
                ours = self._search_some(query[None], k, chosen)
            scores[row], items[row] = ours[0][0], ours[1][0]
        return scores, items

    def _rescore(
        self, query: Float[np.ndarray, "1 d"], items: Int[np.ndarray, " c"], k: int
    ) -> Lists:
        existing = np.where(items < 0, 0, items)
        scores = np.asarray(block_scores(query, self.take(existing)))
        scores = np.where(items < 0, lowest(scores.dtype), scores)
        return merge_lists(scores, items[None], k)

    def _select(
        self,
        queries: Shaped[np.ndarray, "q d"],
        k: int,
        chosen: Bool[np.ndarray, " n"] | None,
    ) -> Lists:
        """As `search`, with k rounded up, and scores as they come."""
        width = max(LEAST, _power(k))
        count = len(queries)
        few = 1 if count == 1 else 4 ** -(-(count - 1).bit_length() // 2)
        padded = np.zeros((few, queries.shape[1]), queries.dtype)
        padded[:count] = queries
        place = device_copies(padded)
        best: dict[jax.Device, Best] = {}
        pending: list[Best] = []
        for rows, items in self._filtered(chosen):
            (device,) = rows.devices()
            before = best.get(device) or _nothing(few, width, queries.dtype, device)
            best[device] = add_block(before, place(device), rows, items, k=width)
            limit_pending(pending, best[device], 2 * len(best))
        lists = list(best.values()) or [_nothing(few, width, queries.dtype, None)]
        found = np.concatenate([np.asarray(each.scores) for each in lists], axis=1)
        places = np.concatenate([np.asarray(each.items) for each in lists], axis=1)
        if len(lists) > 1:
            found, places = merge_lists(found, places, width)
        return found[:count], places[:count]

    def _filtered(
        self, chosen: Bool[np.ndarray, " n"] | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yields blocks, each with the indices of its rows, or -1."""
        if chosen is None:
            yield from ((block.load(), block.items) for block in self.blocks)
            return
        wanted = np.flatnonzero(chosen).astype(np.int32)
        gathers = self._on_cpu or self.blocks[0].read is not None
        if gathers and len(wanted) <= GATHERED * len(self):
            for start in range(0, len(wanted), SHORT):
                yield self._gathered(wanted[start : start + SHORT])
            return
        for block in self.blocks:
            here = chosen[block.first : block.first + block.count]
            if here.any():
                own = np.arange(block.first, block.first + block.count, dtype=np.int32)
                own[~here] = -1
                yield block.load(), _padded(own, block.size, block.device)

    def _gathered(self, items: Int[np.ndarray, " n"]) -> tuple[Array, Array]:
        size, device = max(ALIGNMENT, _power(len(items))), self.blocks[0].device
        rows = aligned_empty((size, self.dims), self.dtype)
        rows[: len(items)], rows[len(items) :] = self.take(items), 0
        placed = jax.device_put(rows, device, may_alias=True)
        return placed, _padded(items, size, device)

    @property
    def _on_cpu(self) -> bool:
        return self.blocks[0].device.platform == "cpu"


@partial(jax.jit, static_argnames="k")
def add_block(
    best: Best,
    queries: Shaped[Array, "q d"],
    rows: Shaped[Array, "b d"],
    items: Int[Array, " b"],
    *,
    k: int,
) -> Best:
    """The best k of earlier rows and of a block's whose index is not negative."""
    found = block_scores(queries, rows)
    offered = jnp.where(items >= 0, found, lowest(found.dtype))
    exact = queries.dtype == jnp.int8 and queries.shape[1] <= EXACT_DIMS
    scores, column = highest(offered, min(k, len(rows)), exact)
    return merge_best(best, scores, items[column], k)


def _nothing(queries: int, k: int, dtype: Any, device: jax.Device | None) -> Best:
    kind = np.dtype(np.int32 if dtype == np.int8 else np.float32)
    scores = np.full((queries, k), lowest(kind), kind)
    empty = scores, np.full((queries, k), -1, np.int32)
    return Best(*jax.device_put(empty, device))


def _cut(total: int) -> Iterator[tuple[int, int]]:
    """Yields the first row and the size of blocks for some rows."""
    begin = 0
    while begin < total:
        left = total - begin
        size = next((size for size in (LONG, SHORT) if left >= size), None)
        size = size or max(ALIGNMENT, _power(left))
        yield begin, size
        begin += size


def _power(number: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


def _load(
    database: Database, begin: int, count: int, size: int, device: jax.Device
) -> Shaped[Array, "b d"]:
    """Rows of a database on a device, padded with zeros."""
    rows = aligned_empty((size, database.shape[1]), database.dtype)
    for start in range(0, count, READ):
        part = rows[start : min(start + READ, count)]
        part[:] = database[begin + start : begin + start + len(part)]
    rows[count:] = 0
    # On a CPU the array is the buffer itself; nothing writes to it any more.
    return jax.device_put(rows, device, may_alias=True)


def _read(
    database: Database, begin: int, rows: Int[np.ndarray, " n"]
) -> Shaped[np.ndarray, "n d"]:
    """Rows of a database by their numbers from some row on."""
    starts = (rows + begin).tolist()
    return np.concatenate([database[start : start + 1] for start in starts])


def _in_memory(blocks: Sequence[HeldBlock]) -> Iterator[HeldBlock]:
    """Reads blocks, some at the same time: most of it is the kernel's work."""
    with ThreadPoolExecutor(READERS) as pool:
        for block, rows in zip(
            blocks, pool.map(lambda block: block.load(), blocks), strict=True
        ):
            yield dataclasses.replace(block, load=partial(_identity, rows))


def _identity(rows: Array) -> Array:
    return rows


def _padded(items: Int[np.ndarray, " n"], size: int, device: jax.Device) -> Array:
    """Indices of rows on a device, followed by -1."""
    padded = np.full(size, -1, np.int32)
    padded[: len(items)] = items
    return jax.device_put(padded, device)
