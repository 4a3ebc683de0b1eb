"""What digests add to saving and loading a checkpoint, and which damage they notice."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from tokret import command_line
from tokret.arguments import within
from tokret.benchmark.speed import environment_line
from tokret.benchmark.timing import (
    Times,
    check_turns,
    environment,
    format_spread,
    ratios,
    spread,
    time_calls,
)
from tokret.errors import UserError
from tokret.training.checkpoint_arrays import (
    STATE,
    SavedArrays,
    on_first_device,
    open_arrays,
    start_saving,
)

PACKAGES = ("jax", "orbax-checkpoint", "tensorstore")
ARRAY = 2**20  # float32 values of one array: 4 MiB
FLIPS = 28  # in the file with the arrays; one in each of the others
ALONE, DIGESTS = "Orbax alone", "with digests"
Saves = dict[str, Callable[[Path, Any], Any]]
SAVES: Saves = {
    ALONE: lambda path, state: ocp.save_checkpointables_async(path, {STATE: state}),
    DIGESTS: lambda path, state: start_saving(path, state, {}),
}


def run(mib: int, turns: int) -> dict[str, Any]:
    """Saves and loads in turns with digests and without, then flips bits.

    Args:
      mib: size of the checkpoint, as many random weights.
      turns: how often each is timed.

    Returns:
      "blocked" (until training may proceed), "saved" and "loaded": seconds of each
      turn, by case; "flips": the bits that were flipped, and those that were noticed.

    Raises:
      UserError: for a size below 4 MiB, or no turns.
    """
    within("mib", mib, 4)
    check_turns(turns)
    command_line.quieten()
    chance = np.random.default_rng(0)
    weights = (chance.normal(0, 0.02, ARRAY).astype("f4") for _ in range(mib // 4))
    state = {"params": {str(i): jax.device_put(w) for i, w in enumerate(weights)}}
    device = jax.devices()[0].device_kind
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        blocked, saved = _time_saves(path, state, turns)
        start_saving(path, state, {}).result()
        whole = open_arrays(path)
        calls = {ALONE: lambda: _load(whole), DIGESTS: lambda: _load(open_arrays(path))}
        loaded = time_calls(calls, turns)
        flips = _count_flips(path)
    return {
        "benchmark": "checkpoints",
        "environment": {**environment(*PACKAGES), "device": device},
        **{"mib": mib, "blocked": blocked, "saved": saved, "loaded": loaded},
        "flips": flips,
    }


def _time_saves(path: Path, state: Any, turns: int) -> tuple[Times, Times]:
    """Returns the seconds until training may proceed, and until all is written."""
    blocked: Times = {name: [] for name in SAVES}
    saved: Times = {name: [] for name in SAVES}
    for turn in range(turns + 1):  # the first warms up
        for name in sorted(SAVES, reverse=turn % 2 == 1):
            start = time.perf_counter()
            saving = SAVES[name](path, state)
            returned = time.perf_counter()
            saving.result()
            if turn:
                blocked[name].append(returned - start)
                saved[name].append(time.perf_counter() - start)
            shutil.rmtree(path)
    return blocked, saved


def _load(saved: SavedArrays) -> Any:
    return jax.block_until_ready(saved.load(on_first_device(saved.shapes)))


def _count_flips(folder: Path) -> dict[str, int]:
    counts = {"flipped": 0, "noticed": 0}
    for _ in _flipped(folder):
        counts["flipped"] += 1
        try:
            open_arrays(folder)
        except UserError:
            counts["noticed"] += 1
    return counts


def _flipped(folder: Path) -> Iterator[Path]:
    """Flips one bit at a time: in the file with the arrays, then in every other."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=_size)
    places = [(files[-1], number / FLIPS) for number in range(FLIPS)]
    places += [(path, 0.5) for path in files[:-1] if _size(path)]
    for number, (path, fraction) in enumerate(places):
        place, bit = int(_size(path) * fraction), 1 << number % 8
        _flip(path, place, bit)
        yield path
        _flip(path, place, bit)


def _size(path: Path) -> int:
    return path.stat().st_size


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def report(result: dict[str, Any]) -> str:
    """Formats what `run` returns."""
    lines = [
        environment_line(result["environment"]),
        f"a checkpoint of {result['mib']} MiB, milliseconds: median (fastest to "
        "slowest)",
    ]
    for name in ("blocked", "saved", "loaded"):
        times = result[name]
        for case in (ALONE, DIGESTS):
            milliseconds = format_spread(spread(times[case]), 1, 1e3)
            lines.append(f"{name:8} {case:14} {milliseconds}")
        ratio = format_spread(spread(ratios(times[DIGESTS], times[ALONE])), 3)
        lines.append(f"{name:8} ratio in pairs {ratio}")
    added = [
        (ours - alone) / whole
        for ours, alone, whole in zip(
            result["blocked"][DIGESTS],
            result["blocked"][ALONE],
            result["saved"][ALONE],
            strict=True,
        )
    ]
    percent = format_spread(spread(added), 2, 100.0)
    lines.append(f"training waits longer by {percent} % of the time to save")
    flips = result["flips"]
    lines.append(f"{flips['noticed']} of {flips['flipped']} flipped bits noticed")
    return "\n".join(lines)
