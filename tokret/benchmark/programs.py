"""Compiled programs: how long compiling takes, and what XLA says they will do."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tokret.training.utilisation import product_flop


class Program(NamedTuple):
    """A program, ready to run.

    Attributes:
      call: takes the arguments it was compiled for.
      compile_seconds: to trace, lower and compile, nothing being cached.
      products: FLOP of its matrix products and convolutions as they are written.
      flop: that XLA counts in what it compiled; None where it does not say.
      bytes_accessed: that XLA counts, to and from memory; None likewise.
      memory: bytes of arguments, results and temporaries together; None likewise.
    """

    call: Callable[..., Any]
    compile_seconds: float
    products: int
    flop: float | None
    bytes_accessed: float | None
    memory: int | None


def compile_program(function: Any, *arguments: Any) -> Program:
    """Compiles a jitted function for arguments, arrays or their shapes."""
    start = time.perf_counter()
    traced = function.trace(*arguments)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start
    cost = compiled.cost_analysis() or {}
    return Program(
        compiled,
        seconds,
        product_flop(traced.jaxpr.jaxpr),
        cost.get("flops"),
        cost.get("bytes accessed"),
        _memory(compiled.memory_analysis()),
    )


def _memory(found: Any) -> int | None:
    if found is None:
        return None
    # What is donated is an argument and a result, and there once.
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )


def require_memory(program: Program) -> None:
    """Refuses what would take more than half the memory a CPU has left.

    An accelerator refuses by itself; a CPU's system ends some process.

    Raises:
      MemoryError: if it would.
    """
    if jax.default_backend() != "cpu" or program.memory is None:
        return
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    figures = dict(line.split(":") for line in lines)
    left = int(figures["MemAvailable"].split()[0]) * 1024
    if program.memory > left / 2:
        raise MemoryError(f"out of memory: {program.memory} of {left} bytes")


def peak_bytes(device: jax.Device) -> int | None:
    """The most memory of a device that this process ever used; None if unknown."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")
