"""One case: a program of tokret, and perhaps others of the same work, in turns."""

import gc
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tokret.benchmark.compiled_program import CompiledProgram
from tokret.benchmark.rivals import Call, Makers, Rivals
from tokret.benchmark.timing import OURS, ratios, spread, time_calls
from tokret.errors import UserError
from tokret.models.kernels.matmul import project
from tokret.runtime.progress import progress_bar

# Of what measures a device's limits: the side of the square matrices, and the float32
# in each of three arrays.
SIDES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
STREAM = {"cpu": 2**25, "gpu": 2**27, "tpu": 2**27}
ROUNDS = 6  # of warming up, at most
FEW_PAGES = 2_048  # 8 MB of memory that a round of calls may still allocate
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory")


class Settings(NamedTuple):
    """How cases are timed."""

    turns: int = 7  # how often
    rivals: Rivals = Rivals()  # other programs to time in the same turns
    # of the products that the matrix rate is measured with; None takes what fills the
    # device
    matrix_side: int | None = None


class Case(NamedTuple):
    """What is timed."""

    # what the case is, for the JSON; `dtype` chooses the matrix rate
    facts: Mapping[str, Any]
    program: CompiledProgram  # tokret's, compiled
    ours: Call  # runs it once and waits for it
    rivals: Makers  # makes each other program's call
    images: int  # that one run of the program processes
    runs: int = 1  # of the program, and of what a rival does, in each call


def make_limits(dtype: str, side: int | None) -> dict[str, tuple[Call, int]]:
    """Makes work that one limit of the first device bounds, and its FLOP or bytes.

    A data sheet does not know clocks, virtual cores and other users, so both limits are
    measured in turns with the program: products of square matrices, as models compute
    them (float32 is not TF32), and a + 2 b, written to a third array, of the size of 8
    matrices. A side of None takes what fills the device.
    """
    kind = jax.default_backend()
    length = 8 * side**2 if side else STREAM.get(kind, STREAM["cpu"])
    side = side or SIDES.get(kind, SIDES["cpu"])
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    multiply, add = jax.jit(project), jax.jit(lambda a, b: a + 2.0 * b)
    one, two = jnp.ones(length, jnp.float32), jnp.ones(length, jnp.float32)
    return {
        "matrix products alone": (
            lambda: multiply(matrix, matrix).block_until_ready(),
            2 * side**3,
        ),
        "a stream alone": (lambda: add(one, two).block_until_ready(), 12 * length),
    }


def time_case(case: Case, settings: Settings) -> dict[str, Any]:
    """Times a case.

    Returns:
      The facts and the program's costs; matrix_rate (FLOP/s of nothing but matrix
      products) and bandwidth (bytes/s of nothing but a stream), taken in the same
      turns, and the program's fractions of them, each [median, lowest, highest];
      peak_bytes of the device so far; rivals by form, their ratio being their time,
      ours being 1; fastest, the form of the least ratio, or None; skipped, forms that
      failed and why.
    """
    case.ours()  # its memory is allocated before rivals take what there is
    calls, skipped = _ready(case.rivals, settings.rivals)
    limits = make_limits(case.facts["dtype"], settings.matrix_side)
    calls = {OURS: case.ours, **calls} | {n: call for n, (call, _) in limits.items()}
    warm_up(calls)
    times = time_calls(calls, settings.turns, warm=True)
    rates, widths = (
        [amount / s for s in times.pop(name)] for name, (_, amount) in limits.items()
    )
    times = {name: [s / case.runs for s in taken] for name, taken in times.items()}
    ours = times.pop(OURS)
    rivals = {
        form: {"seconds": spread(theirs), "ratio": spread(ratios(theirs, ours))}
        for form, theirs in times.items()
    }
    program, accessed = case.program, case.program.bytes_accessed
    return {
        **case.facts,
        "compile_seconds": program.compile_seconds,
        "seconds": spread(ours),
        "images_per_second": spread([case.images / s for s in ours]),
        **{"products": program.products, "flop": program.flop, "bytes": accessed},
        "memory": program.memory,
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "matrix_rate": spread(rates),
        "bandwidth": spread(widths),
        "matrix_fraction": spread(ratios([program.products / s for s in ours], rates)),
        "bandwidth_fraction": accessed
        and spread(ratios([accessed / s for s in ours], widths)),
        "rivals": rivals,
        "fastest": min(rivals, key=lambda f: rivals[f]["ratio"].median, default=None),
        "skipped": skipped,
    }


def warm_up(calls: Mapping[str, Call]) -> None:
    """Runs all calls in turns until the process allocates no new memory.

    On a CPU, XLA and PyTorch use the same heap. Where memory that was used before is
    taken, the system provides other pages, which it fills with zeros first: that takes
    a second of a ResNet's training step of half a second, in up to four turns.
    """
    for _ in range(ROUNDS):
        before = _new_pages()
        for call in calls.values():
            call()
        if _new_pages() - before < FEW_PAGES:
            return


def _new_pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _ready(makers: Makers, rivals: Rivals) -> tuple[dict[str, Call], dict[str, str]]:
    """Makes and warms up calls; returns them, and why others failed, by form."""
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    for form, make in makers.items():
        try:
            calls[form] = make()
            calls[form]()
            continue
        # A missing compiler, too little memory: each library raises its own errors.
        except Exception as error:
            first = str(error).strip().splitlines() or [""]
            failed[form] = f"{type(error).__name__}: {first[0]}"[:200]
        calls.pop(form, None)
        rivals.release()  # the memory of the failed form, now that nothing refers to it
    return calls, failed


def run_cases(
    cases: Mapping[str, Callable[[], Case]],
    settings: Settings,
    wanted: str,
    seconds: float,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Times cases in order, as long as time and memory allow.

    A case must have a part of `wanted`, separated by commas, in its name; none
    starts after so many seconds.

    Returns:
      What `time_case` returned, with the names, and why other cases were skipped.

    Raises:
      UserError: if a part is in no case's name.
    """
    parts = wanted.split(",") if wanted else []
    for part in parts:
        if not part or not any(part in name for name in cases):
            raise UserError(f"cases: {part!r} in {wanted!r} is in no case's name")
    chosen = [n for n in cases if not parts or any(part in n for part in parts)]
    found: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    end = time.monotonic() + seconds
    for name in progress_bar(chosen, unit="case"):
        if time.monotonic() > end:
            skipped[name] = "the time was over"
            continue
        try:
            found.append({"name": name, **time_case(cases[name](), settings)})
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            skipped[name] = "does not fit into memory"
        gc.collect()
        settings.rivals.release()
        jax.clear_caches()
    return found, skipped
