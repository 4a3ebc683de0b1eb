"""What a step of a re-ranking costs: seconds, and memory at its peak."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from tokret.runtime.allocation import allocated

Result = TypeVar("Result")

# Shorter peaks than this are seen only where the device keeps count of its own.
INTERVAL = 0.002  # seconds
_STATM = Path("/proc/self/statm")


class Cost(NamedTuple):
    """Of one step.

    Attributes:
      seconds: by the clock, compiling included.
      peak_bytes: the most memory above what was held before: of the first device, or,
        on the CPU, of the process, compiling included; None where neither is told.
    """

    seconds: float
    peak_bytes: int | None


def costed(function: Callable[[], Result]) -> tuple[Result, Cost]:
    """Runs a function, which must not return before its work is done.

    Args:
      function: called once.

    Returns:
      What it returned, and what it cost.
    """
    before, peak_before = _bytes_held()
    seen = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            seen.append(max(seen.pop(), _bytes_held()[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        result = function()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    held, peak = _bytes_held()
    if before < 0:
        return result, Cost(seconds, None)
    highest = max(seen[0], held, peak if peak > peak_before else 0)
    return result, Cost(seconds, highest - before)


def _bytes_held() -> tuple[int, int]:
    """Bytes now, and the device's own peak since it started (0: it keeps none)."""
    told = jax.local_devices()[0].memory_stats()
    if told:
        return told["bytes_in_use"], told.get("peak_bytes_in_use", 0)
    counted = allocated()
    if counted is not None:
        return counted, 0
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), 0
    except OSError:
        return -1, 0
