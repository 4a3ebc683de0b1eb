"""Interleaved timings: whatever else a machine does affects every case alike."""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tokret
from tokret.arguments import within
from tokret.retrieval.results import commit
from tokret.runtime import processor
from tokret.runtime.progress import progress_bar

Item = TypeVar("Item")
Times = dict[str, list[float]]  # case -> seconds of each turn
OURS = "tokret"


class Spread(NamedTuple):
    """The median of the turns and the extremes."""

    median: float
    low: float
    high: float


def check_turns(turns: int) -> int:
    """Returns a number of turns that can be made; raises UserError for another."""
    return within("turns", turns, 1, 9999)


def time_in_turns(
    cases: Mapping[str, Callable[[Item], object]],
    items: Callable[[], Sequence[Item]],
    turns: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    warm: bool = False,
) -> Times:
    """Times every case on every item once a turn, all cases of an item in a row.

    Each turn's items are made untimed. The first turn warms up and does not count,
    unless every case is `warm`, having run already.
    """
    times: Times = {name: [] for name in cases}
    counted = range(1 if warm else 0, turns + 1)
    for turn in progress_bar(counted, unit="turn", leave=False):
        taken = dict.fromkeys(cases, 0.0)
        for item in items():
            for name, case in cases.items():
                start = clock()
                case(item)
                taken[name] += clock() - start
        for name in cases if turn else ():
            times[name].append(taken[name])
    return times


def time_calls(
    calls: Mapping[str, Callable[[], object]], turns: int, *, warm: bool = False
) -> Times:
    """Times calls without arguments, as `time_in_turns`."""
    cases = {name: lambda _, call=call: call() for name, call in calls.items()}
    return time_in_turns(cases, lambda: [None], turns, warm=warm)


def spread(values: Sequence[float]) -> Spread:
    """Returns the median, the smallest and the largest value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divides turn by turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def format_spread(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """Formats a median and its extremes, each multiplied by `scale`."""
    median, low, high = (f"{scale * value:.{digits}f}" for value in values)
    return f"{median} ({low} to {high})"


def environment(*packages: str) -> dict[str, Any]:
    """Returns what timings depend on, such as versions and the processor."""
    limited = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if limited else os.cpu_count()
    return {
        "commit": commit(Path(tokret.__file__).resolve().parents[1]),
        "versions": {
            "tokret": tokret.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "platform": platform.platform(),
        "processor": processor.name(),
        "cores": cores,
        **gpu_driver(),
    }


def gpu_driver(file: Path = Path("/proc/driver/nvidia/version")) -> dict[str, str]:
    """Returns {"driver": version} of NVIDIA's driver, {} where there is none."""
    try:
        found = re.search(r"Kernel Module.*?(\d+(?:\.\d+)+)", file.read_text())
    except (OSError, UnicodeDecodeError):
        return {}
    return {"driver": found[1]} if found else {}
