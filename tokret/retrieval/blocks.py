"""A database of descriptors, cut into blocks that take turns on the devices.

Block i lies on device i modulo the number of devices. A process loads only the blocks
of its own devices, and the system is told which pages of a file come next.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from tokret.shapes import Array, Shaped

# 64 MiB of 1,024 float32: enough that starting programs costs nothing beside them.
BLOCK = 16384
# Few queries are done with that so soon that starting programs does cost, 18 % of one
# query's time among a million on two cores: half as many as this, and fewer, get longer
# blocks, up to eight times so long.
_MANY, _FEWEST = 64, 8
# XLA's CPU product treats whole vectors of columns alike and a remainder by other code:
# in multiples of this, it gives the same scores for blocks of any size.
ALIGNMENT = 128
# These stay as they are on the device; the others are computed with in float32.
KEPT = (jnp.int8, jnp.uint8, jnp.bfloat16)

_CACHE_LINE = 64  # bytes: where XLA wants arrays to begin


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


@dataclass(frozen=True)
class Blocks:
    """A database cut into blocks of one shape.

    Attributes:
      total: N, its number of rows.
      rows: rows of each block; the last one begins with rows of the one before, or
        where there is but one, ends with rows of zeros.
      dtype: of a block: float32, bfloat16, int8, or uint8 for product codes.
      devices: on which the blocks take turns, of all processes.
      load: gives block i as [rows, D] on its device, which must be this process's.
      foresee: told which block comes next, so that the disk reads it meanwhile.
    """

    total: int
    rows: int
    dtype: np.dtype
    devices: tuple[jax.Device, ...]
    load: Callable[[int], Array]
    foresee: Callable[[int], None]

    def __len__(self) -> int:
        """The number of blocks."""
        return -(-self.total // self.rows)

    def start(self, number: int) -> int:
        """The index of block i's first row.

        The last block reaches back, so that it need not be copied to be filled up.
        """
        return _start(number, self.rows, self.total)

    def first(self, number: int) -> int:
        """The index of block i's first row that no earlier block has."""
        return number * self.rows

    def device(self, number: int) -> jax.Device:
        """The device of block i."""
        return self.devices[number % len(self.devices)]

    def local(self, numbers: Sequence[int]) -> list[int]:
        """Those of some blocks that lie on this process's devices."""
        here = jax.process_index()
        return [i for i in numbers if self.device(i).process_index == here]

    def each(self, numbers: Sequence[int]) -> Iterator[tuple[int, Array]]:
        """Loads this process's among some blocks: (i, block i)."""
        mine = self.local(numbers)
        for number, following in zip_longest(mine, mine[1:]):
            if following is not None:
                self.foresee(following)
            yield number, self.load(number)


def stream_blocks(
    database: Database,
    block: int = BLOCK,
    devices: Sequence[jax.Device] | None = None,
) -> Blocks:
    """Blocks that are read, and moved to the device, each time they are asked for.

    On a CPU nothing is copied of a float32, bfloat16 or int8 file that is mapped into
    memory, but for the last block: the program reads the file's own pages.

    Args:
      database: [N, D] descriptors; a memory-mapped file stays on the disk.
      block: rows of a block, rounded up to a multiple of 128 and never much over N.
      devices: on which the blocks take turns; None takes all of this process's. With
        those of several processes, every one of these must make the same calls.
    """
    total = len(database)
    rows = aligned(max(1, min(block, total)))
    places = tuple(jax.local_devices() if devices is None else devices)
    dtype = np.dtype(database.dtype if database.dtype in KEPT else np.float32)

    def load(number: int) -> Array:
        start = _start(number, rows, total)
        part = np.asarray(database[start : start + rows], dtype)
        if len(part) < rows:
            part = np.pad(part, ((0, rows - len(part)), (0, 0)))
        # The buffer may be the file itself; nobody writes to it.
        return jax.device_put(part, places[number % len(places)], may_alias=True)

    def foresee(number: int) -> None:
        _read_soon(database[number * rows : (number + 1) * rows])

    return Blocks(total, rows, dtype, places, load, foresee)


def hold_blocks(
    database: Database,
    block: int = BLOCK,
    devices: Sequence[jax.Device] | None = None,
) -> Blocks:
    """Blocks that all stay on the devices, for a database that is passed many times.

    Args:
      database: [N, D] descriptors.
      block: rows of a block, rounded up to a multiple of 128 and never much over N.
      devices: as for `stream_blocks`.
    """
    streamed = stream_blocks(database, block, devices)
    held = dict(streamed.each(range(len(streamed))))
    return Blocks(
        streamed.total,
        streamed.rows,
        streamed.dtype,
        streamed.devices,
        held.__getitem__,
        foresee=lambda number: None,
    )


class Everywhere:
    """An array that is copied to a device when that first asks for it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self._copies: dict[jax.Device, Array] = {}

    def __getitem__(self, device: jax.Device) -> Array:
        if device not in self._copies:
            self._copies[device] = jax.device_put(self._array, device)
        return self._copies[device]


def of_all_processes(
    array: Shaped[np.ndarray, "..."], blocks: Blocks
) -> Shaped[np.ndarray, "p ..."]:
    """What each process with a part of the database holds, in a row."""
    if len({device.process_index for device in blocks.devices}) == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))


def in_place(shape: tuple[int, ...], dtype: Any) -> Shaped[np.ndarray, "n d"]:
    """Memory of any content that a CPU's programs read where it is, uncopied."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def block_rows(queries: int) -> int:
    """Rows of a block that so many queries, asked together, are best compared with."""
    return BLOCK * max(1, _MANY // max(_FEWEST, queries))


def _start(number: int, rows: int, total: int) -> int:
    return max(0, min(number * rows, total - rows))


def aligned(rows: int) -> int:
    """Rounds a number of rows up to one whose products depend on nothing else."""
    return -(-rows // ALIGNMENT) * ALIGNMENT


def _read_soon(part: Any) -> None:
    """Asks the system to read rows of a mapped file, without waiting for it."""
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
