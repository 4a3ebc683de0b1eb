"""Compiled programs: how long compiling takes, and XLA's count of their work."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tokret.training.utilisation import product_flop


class CompiledProgram(NamedTuple):
    """A program, ready to run."""

    call: Callable[..., Any]  # takes the arguments it was compiled for
    compile_seconds: float  # to trace, lower and compile, nothing being cached
    products: int  # FLOP of its matrix products and convolutions as they are written
    flop: float | None  # XLA's count of what it compiled; None where there is none
    bytes_accessed: float | None  # to and from memory, by XLA's count; None likewise
    # bytes of arguments, results and temporaries together; None likewise
    memory: int | None


def compile_program(function: Any, *arguments: Any) -> CompiledProgram:
    """Compiles a jitted function for arguments, arrays or their shapes.

    Raises:
      MemoryError: on a CPU, if it would take more than half the memory that is left;
        an accelerator refuses by itself, while a CPU's system ends some process.
    """
    start = time.perf_counter()
    traced = function.trace(*arguments)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start
    cost, found = compiled.cost_analysis() or {}, compiled.memory_analysis()
    # What is donated is both an argument and a result.
    memory = found and int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    if jax.default_backend() == "cpu" and memory is not None:
        _require_memory(memory)
    products = product_flop(traced.jaxpr.jaxpr)
    flop, accessed = cost.get("flops"), cost.get("bytes accessed")
    return CompiledProgram(compiled, seconds, products, flop, accessed, memory)


def _require_memory(needed: int) -> None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    figures = dict(line.split(":") for line in lines)
    left = int(figures["MemAvailable"].split()[0]) * 1024
    if needed > left / 2:
        raise MemoryError(f"out of memory: {needed} of {left} bytes")
