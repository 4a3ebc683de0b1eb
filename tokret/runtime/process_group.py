"""Arrays that processes exchange through the coordinator, not through devices.

So a process can keep computing while another is slow, and the first may be busy for
hours between calls. All make the same calls, in the same order.
"""

import functools
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokret.runtime import coordinator
from tokret.runtime.cluster import PATIENCE

CHUNK = 2 << 20  # bytes of a message: gRPC takes no more than 4 MiB
AHEAD = 32  # calls after which processes wait for the slowest: a bound on memory

Arrays = Mapping[str, np.ndarray]


class ProcessGroup:
    """Processes that divide work; the first keeps the results.

    Args:
      index: this process's, from 0.
      count: how many there are.
      client: of the coordinator; None for a process alone.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None) -> None:
        self.index, self.count = index, count
        self._client, self._calls = client, 0

    @property
    def first(self) -> bool:
        """Whether this process keeps the results."""
        return self.index == 0

    def part_of(self, total: int) -> range:
        """Returns this process's contiguous part of `total` items of work."""
        start, stop = (total * i // self.count for i in (self.index, self.index + 1))
        return range(start, stop)

    def gather(self, mine: Arrays) -> list[Arrays]:
        """Sends arrays, of names and shapes of its own, to the first process.

        Returns:
          In the first, the arrays of each process, in order; in the others, nothing.
        """
        call = self._next()
        if not self.first:
            self._send(f"{call}/{self.index}", mine)
            return []
        others = (self._take(f"{call}/{i}") for i in range(1, self.count))
        return [mine, *others]

    def broadcast(self, arrays: Arrays) -> Arrays:
        """Returns the first process's arrays, in every process."""
        call = self._next()
        if not self.first:
            return self._take(f"{call}/{self.index}")
        for i in range(1, self.count):
            self._send(f"{call}/{i}", arrays)
        return arrays

    def _next(self) -> str:
        """Returns the name of the next call, the same in all processes."""
        self._calls += 1
        name = f"tokret/exchange/{self._calls}"
        if self.count > 1 and self._calls % AHEAD == 0:
            self._client.wait_at_barrier(f"{name}/all", int(PATIENCE * 1000))
        return name

    def _send(self, key: str, arrays: Arrays) -> None:
        np.savez(buffer := io.BytesIO(), allow_pickle=False, **arrays)
        content = buffer.getvalue()
        for start in range(0, len(content), CHUNK):
            chunk = content[start : start + CHUNK]
            more = b"+" if start + CHUNK < len(content) else b"."
            self._client.key_value_set_bytes(f"{key}/{start // CHUNK}", more + chunk)

    def _take(self, key: str) -> Arrays:
        chunks: list[bytes] = []
        while not chunks or chunks[-1][:1] == b"+":
            name = f"{key}/{len(chunks)}"
            get = self._client.blocking_key_value_get_bytes
            chunks.append(get(name, int(PATIENCE * 1000)))
            self._client.key_value_delete(name)
        content = io.BytesIO(b"".join(chunk[1:] for chunk in chunks))
        with np.load(content, allow_pickle=False) as loaded:
            return dict(loaded)


ALONE = ProcessGroup()


@functools.cache
def all_processes() -> ProcessGroup:
    """Returns the group of all processes that `cluster.join` joined."""
    index, count = coordinator.process_index(), coordinator.process_count()
    return ProcessGroup(index, count, coordinator.client())
