"""The benchmarks of speed by name, and what all of their results hold."""

import importlib
from collections.abc import Callable
from typing import Any

import jax

from tokret.benchmark import database_pass, second_start
from tokret.benchmark.case import Budget
from tokret.benchmark.rivals import import_rival
from tokret.benchmark.targets import judge
from tokret.benchmark.turns import environment

MODULES = {
    "inference": "tokret.benchmark.inference",
    "train": "tokret.benchmark.training_step",
    "extract": "tokret.benchmark.extraction",
}
# Those of one case.
SINGLE: dict[str, Callable[[int], dict[str, Any]]] = {
    "start": second_start.run,
    "scan": database_pass.run,
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def device_name() -> str:
    """Names the kind of device that programs run on; "cpu" for a CPU."""
    return str(jax.devices()[0].device_kind)


def run(
    benchmark: str, *, turns: int, cases: str, minutes: float, limit: int | None = None
) -> dict[str, Any]:
    """Runs a benchmark of many cases.

    Args:
      benchmark: inference, train or extract.
      turns: how often every case is timed.
      cases: names' parts, with commas: those cases alone; all if empty.
      minutes: after which no case begins.
      limit: side of the matrices that the ceiling is measured with; None takes what
        fills the device.

    Returns:
      What was measured, of what and where, as JSON takes it.
    """
    result = _begun(benchmark, turns) | {"asked": cases, "minutes": minutes}
    budget = Budget(60 * minutes)
    found, left_out = _runner(benchmark)(turns, cases, budget, limit)
    return with_targets(result | {"cases": found, "left_out": left_out})


def run_single(benchmark: str, turns: int) -> dict[str, Any]:
    """Runs a benchmark of one case: scan or start."""
    return with_targets(_begun(benchmark, turns) | SINGLE[benchmark](turns))


def _begun(benchmark: str, turns: int) -> dict[str, Any]:
    rival = import_rival()
    packages = PACKAGES if rival is None else (*PACKAGES, "torch")
    return {
        "benchmark": benchmark,
        "environment": {**environment(*packages), "device": device_name()},
        "turns": turns,
        "rival": rival is not None,
    }


def with_targets(result: dict[str, Any]) -> dict[str, Any]:
    """Adds the targets that the result bears on."""
    judged = judge({result["benchmark"]: result})
    return result | {"targets": [target for target in judged if target["cases"]]}


def _runner(benchmark: str) -> Callable[..., Any]:
    # Each imports only what it needs.
    module = importlib.import_module(MODULES[benchmark])
    runner: Callable[..., Any] = module.run
    return runner
