"""The cost of a re-ranking step: seconds, and peak memory."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from tokret.runtime.allocation import allocated

Result = TypeVar("Result")

# Shorter peaks than this are seen only where the device records its peak itself.
INTERVAL = 0.002  # seconds
_STATM = Path("/proc/self/statm")


class StepCost(NamedTuple):
    """The cost of one step."""

    seconds: float  # wall time, compilation included
    # peak memory above that before the step: of the first device, or, on a CPU, of the
    # process, compilation included; None where neither is known
    peak_bytes: int | None


def measure_cost(function: Callable[[], Result]) -> tuple[Result, StepCost]:
    """Runs and measures a function, which must not return before its work is done."""
    before, peak_before = _bytes_in_use()
    seen = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            seen.append(max(seen.pop(), _bytes_in_use()[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        result = function()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    after, peak = _bytes_in_use()
    if before < 0:
        return result, StepCost(seconds, None)
    highest = max(seen[0], after, peak if peak > peak_before else 0)
    return result, StepCost(seconds, highest - before)


def _bytes_in_use() -> tuple[int, int]:
    """Bytes now, and the device's peak since it started (0 if it records none)."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["bytes_in_use"], stats.get("peak_bytes_in_use", 0)
    counted = allocated()
    if counted is not None:
        return counted, 0
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), 0
    except OSError:
        return -1, 0
