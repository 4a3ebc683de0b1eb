"""The flags of the benchmarks of speed, and all benchmarks in a row."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.runtime.allocation import keep_freed_memory

MINUTES = 10.0
SECONDS_TO_CLEAR_UP = 5.0
CASES = {
    "inference": "descriptors of a batch on the device, beside PyTorch",
    "train": "training steps of a batch on the device, beside PyTorch",
    "extract": "three-scale descriptors of mixed shapes, beside one photo at a time",
}
SINGLE = {
    "scan": "search of a database on the device, beside reading it once",
    "start": "compiling in a first and in a second start of the same program",
}
BYTES = "bytes that a TPU moves in a training step, compiled here, beside plain Flax"
# In a row. Compressed databases, which take longest, are left to `search` itself.
ROW: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*CASES, *SINGLE), ()),
    "search": ("--forms=",),
    "input": (),
    "bytes": (),
}
QUICK = {"search": ("--database=20000",)}  # what else a quick run says
UNTIMED = {"bytes"}
LONG = {"bytes"}  # minutes, whatever is said: a quick run leaves it out


def minutes(text: str) -> float:
    """Reads --minutes."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise UserError(f"--minutes={text:.20}: it must be above 0 and below a million")
    return value


def speed_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of one benchmark of speed."""
    parser.add_argument(
        *("--cases",),
        default="",
        metavar="TEXT,...",
        help="only cases with any of these in their names, as 'resnet50 float32 8x512'",
    )
    _minutes_flag(parser, "no case begins after so many")


def _minutes_flag(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument(
        *("--minutes",), type=minutes, default=MINUTES, help=f"{words} ({MINUTES:g})"
    )


def run_speed(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs one benchmark of many cases."""
    prepare_memory()
    from tokret.benchmark import speed

    return speed.run(
        flags.benchmark, turns=flags.turns, cases=flags.cases, minutes=flags.minutes
    )


def no_flags(parser: argparse.ArgumentParser) -> None:
    """Adds none: a benchmark of one case."""


def run_single(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs one benchmark of one case."""
    prepare_memory()
    from tokret.benchmark import speed

    return speed.run_single(flags.benchmark, flags.turns)


def run_bytes(flags: argparse.Namespace) -> dict[str, Any]:
    """Compiles for a TPU that is not there."""
    del flags  # none
    look_for_no_tpu()
    from tokret.benchmark import moved_bytes, speed

    return speed.with_targets(moved_bytes.run())


def look_for_no_tpu() -> None:
    """Keeps jax, not imported yet, from looking for a TPU, here or in the cloud."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}


def prepare_memory() -> None:
    """Leaves a GPU's memory to PyTorch too, as train.py a CPU's; before jax starts."""
    keep_freed_memory()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def report_speed(result: dict[str, Any]) -> str:
    """Says what one benchmark of speed measured, and the targets it bears on."""
    from tokret.benchmark import speed_report

    lines = [speed_report.report(result)]
    if result["targets"]:
        lines += ["", *speed_report.targets_table(result["targets"])]
    return "\n".join(lines)


def all_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of all benchmarks in a row."""
    _minutes_flag(parser, "no case of a benchmark begins after so many of its own")
    parser.add_argument(
        *("--quick",),
        action="store_true",
        help="--minutes=1, small databases, and no bytes",
    )


def run_all(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs every benchmark in a process of its own, and judges all targets.

    What one of them lacks ends it alone; after each, the JSON holds all so far.
    """
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    result = _together(results, failed)
    row = {name: own for name, own in ROW.items() if not (flags.quick and name in LONG)}
    for name, own in row.items():
        arguments = [*own]
        if name not in UNTIMED:
            arguments.append(f"--turns={flags.turns}")
        if name in CASES:
            arguments.append(f"--minutes={1.0 if flags.quick else flags.minutes}")
        if flags.quick:
            arguments += QUICK.get(name, ())
        found, why = _run_apart(name, arguments)
        if found is None:
            failed[name] = why
        else:
            results[name] = found
        result = _together(results, failed)
        if flags.json is not None and results:  # else an older one stays
            write_json(flags.json, result)
    if not results:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(f"nothing could be measured: {reasons}")
    return result


def _together(results: dict[str, Any], failed: dict[str, str]) -> dict[str, Any]:
    """What `all` writes: results, what is missing and why, every target."""
    from tokret.benchmark.targets import judge

    judged = (*CASES, *SINGLE, "bytes")
    speeds = {name: results[name] for name in judged if name in results}
    return {
        "benchmark": "all",
        "results": results,
        "failed": failed,
        "targets": judge(speeds),
    }


def _run_apart(name: str, arguments: list[str]) -> tuple[dict[str, Any] | None, str]:
    """Runs a benchmark, its output passing through: (its JSON, why there is none).

    Whatever ends this ends it too, with the processes that it has started: one that
    went on would spoil what is measured next.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tokret.benchmark", name, f"--json={path}"]
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        with subprocess.Popen(
            [*command, *arguments], stderr=subprocess.PIPE, text=True, process_group=0
        ) as process:
            try:
                _, said = process.communicate()
            except BaseException:
                _end(process)
                raise
        if path.exists():  # whole, whatever became of what it printed
            return json.loads(path.read_text()), ""
    why = (said.strip().splitlines() or ["it ended without a word"])[-1]
    why = why.removeprefix("error: ")
    sys.stdout.write(f"not measured: {why}\n\n")
    return None, why


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends a benchmark, which may clear up first, and what it has started."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_CLEAR_UP)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes figures whole, or not at all."""
    write_whole(path, json.dumps(result, indent=2) + "\n")


def report_all(result: dict[str, Any]) -> str:
    """Says which targets were reached; the tables were printed on the way."""
    from tokret.benchmark import speed_report

    lines = ["== targets", *speed_report.targets_table(result["targets"])]
    lines += [f"not measured: {n}: {why}" for n, why in result["failed"].items()]
    return "\n".join(lines)


def table_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the README's table."""
    parser.add_argument("readme", type=Path, help="the file with the table's marks")
    parser.add_argument("results", type=Path, nargs="+", help="JSONs of benchmarks")


def run_table(flags: argparse.Namespace) -> dict[str, Any]:
    """Writes the README's table of ratios."""
    from tokret.benchmark import readme_table

    return readme_table.run(flags.readme, flags.results)


def report_table(result: dict[str, Any]) -> str:
    """Says what was written."""
    return f"{result['readme']}: {result['rows']} rows of ratios"
