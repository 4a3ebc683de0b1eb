"""A database of descriptors, cut into blocks that are spread over the devices.

Block i is on device i modulo the number of devices. A process loads only the blocks
of its own devices, and the operating system reads the pages of the next block ahead.
"""

import bisect
import dataclasses
import functools
import mmap
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from tokret.shapes import Array, Shaped

# 64 MiB of 1,024 float32: starting a program then takes no noticeable time.
BLOCK = 16384
# With few queries starting programs does take time, 18 % of one query's among a million
# items on two cores: half as many queries as this, and fewer, get longer blocks, up to
# eight times as long.
_MANY, _FEWEST = 64, 8
# Queries scored together: 64 MiB of scores for each block.
QUERIES = 1024
# XLA's CPU product computes whole vectors of columns and a remainder by different code:
# in multiples of this, it gives the same scores for blocks of any size.
ALIGNMENT = 128
# These stay as they are on the device; the others are converted to float32.
KEPT = (jnp.int8, jnp.uint8, jnp.bfloat16)

_CACHE_LINE = 64  # bytes: the alignment that XLA wants of arrays


@runtime_checkable
class Database(Protocol):
    """Descriptors [N, D] that give slices of rows: an array, or something like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    @property
    def dtype(self) -> Any:
        """Of the numbers."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


class ConcatenatedDatabase:
    """Rows [N, D] of several databases as one dtype; only slices are in memory."""

    def __init__(self, pieces: Sequence[Database], dtype: Any = np.float32) -> None:
        """Concatenates databases of the same D.

        Raises:
          ValueError: they have different dimensions.
        """
        dims = {piece.shape[1] for piece in pieces}
        if len(dims) != 1:
            raise ValueError(f"pieces have {sorted(dims)} dimensions")
        self._pieces = tuple(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        self.shape, self.dtype = (self._ends[-1], dims.pop()), np.dtype(dtype)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Shaped[np.ndarray, "n d"]:
        """Some rows; a slice within one piece of the dtype is not copied."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("a slice's step must be 1")
        parts = []
        first = bisect.bisect_right(self._ends, start)
        for number in range(first, len(self._pieces)):
            piece, end = self._pieces[number], self._ends[number]
            begin = end - len(piece)
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, end)
            if low < high:
                part = piece[low - begin : high - begin]
                parts.append(np.asarray(part, self.dtype))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self.shape[1]), self.dtype), *parts])


class MappedDatabase:
    """A database [N, E] whose rows pass through a function as they are read."""

    def __init__(
        self,
        database: Database,
        function: Callable[[np.ndarray], np.ndarray],
        dims: int,
        dtype: Any = np.float32,
    ) -> None:
        """Maps rows [n, D] of a database, in float32, to rows [n, E] of a dtype."""
        self._database, self._function = database, function
        self.shape, self.dtype = (len(database), dims), np.dtype(dtype)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Shaped[np.ndarray, "n e"]:
        """Some rows."""
        return self._function(np.asarray(self._database[rows], np.float32))


def read_in_blocks(
    database: Database, dtype: Any = np.float32
) -> Iterator[tuple[slice, Shaped[np.ndarray, "b d"]]]:
    """Reads a database on the host: slices and their rows, of some dtype."""
    for start in range(0, len(database), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, np.asarray(database[part], dtype)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A database cut into blocks of one shape."""

    total: int  # N, its number of rows
    # rows of each block; the last one starts with rows of the one before, or where it
    # is the only one, ends with rows of zeros
    rows: int
    dtype: np.dtype  # of a block: float32, bfloat16, int8, or uint8 for product codes
    devices: tuple[jax.Device, ...]  # that the blocks are spread over, of all processes
    # gives block i as [rows, D] on its device, which must be this process's
    load: Callable[[int], Array]
    # called with the number of the next block, to read it from the disk meanwhile
    prefetch: Callable[[int], None]

    def __len__(self) -> int:
        """The number of blocks."""
        return -(-self.total // self.rows)

    def start(self, number: int) -> int:
        """The index of block i's first row.

        The last block starts earlier than its own first row, so that it is full without
        a copy.
        """
        return max(0, min(self.first(number), self.total - self.rows))

    def first(self, number: int) -> int:
        """The index of block i's first row that no earlier block has."""
        return number * self.rows

    def device(self, number: int) -> jax.Device:
        """The device of block i."""
        return self.devices[number % len(self.devices)]

    def each(self, numbers: Sequence[int]) -> Iterator[tuple[int, Array]]:
        """Loads those of some blocks that are this process's: (i, block i)."""
        here = jax.process_index()
        local = [i for i in numbers if self.device(i).process_index == here]
        for number, following in zip_longest(local, local[1:]):
            if following is not None:
                self.prefetch(following)
            yield number, self.load(number)


def stream_blocks(
    database: Database, block: int = BLOCK, devices: Sequence[jax.Device] | None = None
) -> Blocks:
    """Blocks that are read, and moved to the device, each time they are used.

    On a CPU a float32, bfloat16 or int8 file that is mapped into memory is not copied,
    except for the last block: the program reads the file's own pages.

    A block has `block` rows, rounded up to a multiple of 128 and never much over N.
    `devices` None takes all of this process's; with devices of several processes, each
    of these must make the same calls.
    """
    total = len(database)
    rows = -(-max(1, min(block, total)) // ALIGNMENT) * ALIGNMENT
    places = tuple(jax.local_devices() if devices is None else devices)
    dtype = np.dtype(database.dtype if database.dtype in KEPT else np.float32)

    def load(number: int) -> Array:
        start = blocks.start(number)
        part = np.asarray(database[start : start + rows], dtype)
        if len(part) < rows:
            part = np.pad(part, ((0, rows - len(part)), (0, 0)))
        # The buffer may be the file itself; nothing writes to it.
        return jax.device_put(part, blocks.device(number), may_alias=True)

    def prefetch(number: int) -> None:
        _read_ahead(database[number * rows : (number + 1) * rows])

    blocks = Blocks(total, rows, dtype, places, load, prefetch)
    return blocks


def keep_on_devices(blocks: Blocks) -> Blocks:
    """Loads all blocks once, for a database that is searched many times."""
    kept = dict(blocks.each(range(len(blocks))))
    return dataclasses.replace(
        blocks, load=kept.__getitem__, prefetch=lambda number: None
    )


def device_copies(array: np.ndarray) -> Callable[[jax.Device], Array]:
    """A function that copies an array to a device at its first use there."""
    return functools.cache(functools.partial(jax.device_put, array))


def gather_processes(
    array: Shaped[np.ndarray, "..."], blocks: Blocks
) -> Shaped[np.ndarray, "p ..."]:
    """Stacks the arrays of all processes that have blocks."""
    if len({device.process_index for device in blocks.devices}) == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))


def limit_pending(pending: list[Any], newest: Any, most: int) -> None:
    """Adds a result being computed; waits for the oldest where there are too many.

    Each of them takes a device's memory.
    """
    pending.append(newest)
    if len(pending) > most:
        jax.block_until_ready(pending.pop(0))


def query_slices(queries: int) -> list[slice]:
    """Slices of at most `QUERIES` queries; one where there are none."""
    return [slice(i, i + QUERIES) for i in range(0, max(1, queries), QUERIES)]


def rows_per_block(queries: int) -> int:
    """Rows of a block that suit a number of queries scored together."""
    return BLOCK * max(1, _MANY // max(_FEWEST, queries))


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Shaped[np.ndarray, "n d"]:
    """Uninitialised memory that a CPU's programs read without copying it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def _read_ahead(part: Any) -> None:
    """Requests rows of a mapped file from the operating system, without waiting."""
    base = part
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not part.flags.c_contiguous:
        return
    if not hasattr(base, "madvise"):  # Windows
        return
    begin = part.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    start = begin - begin % mmap.PAGESIZE
    base.madvise(mmap.MADV_WILLNEED, start, begin + part.nbytes - start)
