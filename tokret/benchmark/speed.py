"""The benchmarks of many cases, those of one, and their results in plain text."""

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from tokret.benchmark import database_scan
from tokret.benchmark.cases import Settings, run_cases
from tokret.benchmark.rivals import Rivals
from tokret.benchmark.timing import (
    check_turns,
    environment,
    format_spread,
    ratios,
    spread,
)
from tokret.errors import UserError

MODULES = {"inference": "inference", "train": "training_step", "extract": "extraction"}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
TRUNK = {"cpu": "resnet50", "gpu": "resnet101", "tpu": "resnet101"}
_PROGRAM = """
import json, sys, time
from tokret.runtime.compilation_cache import keep_compiled
keep_compiled(sys.argv[1])
import jax, jax.numpy as jnp
from tokret.benchmark.training_step import make_step
programs = make_step(sys.argv[2], "float32", 1000)
images = jax.ShapeDtypeStruct((8, 128, 128, 3), jnp.uint8)
labels = jax.ShapeDtypeStruct((8,), jnp.int32)
lowered = programs.train.lower(programs.abstract, images, labels)
start = time.perf_counter()
lowered.compile()
print(json.dumps(time.perf_counter() - start))
"""


def run(
    benchmark: str, settings: Settings, *, cases: str, minutes: float
) -> dict[str, Any]:
    """Runs the benchmark inference, train or extract; see `run_cases`.

    Raises:
      UserError: for arguments out of range, or cases that there are not.
    """
    if not 0 < minutes < 1e6:
        raise UserError(f"minutes is {minutes}; it must be above 0 and below 1e6")
    # Imports only what it needs.
    module = importlib.import_module(f"tokret.benchmark.{MODULES[benchmark]}")
    result = _start(benchmark, settings.turns, settings.rivals)
    found, skipped = run_cases(
        module.all_cases(settings), settings, wanted=cases, seconds=60 * minutes
    )
    chosen = {"chosen": cases, "minutes": minutes}
    return result | chosen | {"cases": found, "skipped": skipped}


def run_single(benchmark: str, turns: int, **options: Any) -> dict[str, Any]:
    """Runs a benchmark of one case: start, or scan with options of its own."""
    return _start(benchmark, turns, Rivals()) | (
        compilation(turns)
        if benchmark == "start"
        else database_scan.run(turns, **options)
    )


def _start(benchmark: str, turns: int, rivals: Rivals) -> dict[str, Any]:
    where = environment(*PACKAGES, *rivals.packages)
    return {
        "benchmark": benchmark,
        "environment": {**where, "device": str(jax.devices()[0].device_kind)},
        "turns": check_turns(turns),
        "note": rivals.note,
    }


def compile_seconds(folder: str, trunk: str) -> float:
    """Compiles a training step in a process of its own, with a cache in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, folder, trunk], capture_output=True, text=True
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UserError(f"the compiling process failed: {' '.join(last)}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def compilation(turns: int) -> dict[str, Any]:
    """Starts pairs of processes, each pair with an empty cache.

    Returns:
      The trunk; seconds of first and second starts, and the ratio of the second to the
      first; each [median, lowest, highest].
    """
    trunk = TRUNK.get(jax.default_backend(), TRUNK["cpu"])
    first, second = [], []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            first.append(compile_seconds(folder, trunk))
            second.append(compile_seconds(folder, trunk))
    times = {"first": first, "second": second, "ratio": ratios(second, first)}
    return {"trunk": trunk, **{name: spread(each) for name, each in times.items()}}


def environment_line(environment: Mapping[str, Any]) -> str:
    """Formats where and with what was measured."""
    versions = " ".join(f"{name} {v}" for name, v in environment["versions"].items())
    return (
        f"{environment['device']} ({environment['processor']}, {environment['cores']} "
        f"cores); commit {environment['commit'][:12]}; {versions}"
    )


def _cases_table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"{'':<44}{'compile':>9}{'a call':>10}{'images/s':>10}{'memory':>9}"
        f"{'TFLOP':>8}{'GB':>8}{'of peak':>9}{'of mem.':>9}"
    ]
    for case in cases:
        lines.append(
            f"{case['name'][:43]:<44}{case['compile_seconds']:>7.1f} s"
            f"{_seconds(case['seconds'][0]):>10}{case['images_per_second'][0]:>10.2f}"
            f"{giga(case['memory']):>9}{case['products'] / 1e12:>8.3f}"
            f"{giga(case['bytes']):>8}{_percent(case['matrix_fraction']):>9}"
            f"{_percent(case['bandwidth_fraction']):>9}"
        )
        lines.append(
            "  in the same turns: products "
            f"{format_spread(case['matrix_rate'], 3, 1e-12)} TFLOP/s, memory "
            f"{format_spread(case['bandwidth'], 3, 1e-12)} TB/s"
        )
        if "masks_cost" in case:
            cost = format_spread(case["masks_cost"])
            lines.append(f"  with masks: time {cost}, without being 1")
        for form, rival in case["rivals"].items():
            mark = " <- the fastest" if form == case["fastest"] else ""
            times = f"{format_spread(rival['ratio'])} times as fast{mark}"
            lines.append(f"  PyTorch, {form}: tokret is {times}")
        lines += [f"  PyTorch, {n}: {why}" for n, why in case["skipped"].items()]
    return lines


def report(result: Mapping[str, Any]) -> str:
    """Formats what `run` or `run_single` returned."""
    lines = [environment_line(result["environment"])]
    if "cases" in result:
        lines += ["", *_cases_table(result["cases"])]
        lines += [f"{name}: {why}" for name, why in result["skipped"].items()]
        lines += [result["note"]] if result["note"] else []
    elif "rows" in result:
        lines.append(
            f"{result['queries']} queries over {result['rows']:,} x {result['dims']} "
            f"{result['store']}: {_seconds(result['search'][0])}, reading it once "
            f"{_seconds(result['read'][0])}: {format_spread(result['ratio'])} times"
        )
    else:
        lines.append(
            f"{result['trunk']} training step: compiled in {result['first'][0]:.1f} s "
            f"at first, in {result['second'][0]:.1f} s at a second start: "
            f"{format_spread(result['ratio'])} times the first"
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def giga(value: float | None) -> str:
    """Formats a number in 1e9s, None as a dash."""
    return "-" if value is None else f"{value / 1e9:.2f}"


def _percent(values: Sequence[float] | None) -> str:
    return "-" if not values else f"{100 * values[0]:.0f} %"
