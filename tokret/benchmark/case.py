"""One case: a program of tokret beside PyTorch's forms of the same work, in turns."""

import functools
import gc
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from tokret.benchmark.ceilings import make_ceilings
from tokret.benchmark.programs import Program, peak_bytes
from tokret.benchmark.rivals import release
from tokret.benchmark.turns import ratios, spread, take_turns
from tokret.errors import UserError

Call = Callable[[], object]
OURS, PRODUCTS, STREAM = "tokret", "products alone", "a stream alone"
ROUNDS = 6  # of warming up, at most
FEW_PAGES = 2_048  # 8 MB of memory that a round of calls may still ask for
NO_ROOM = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory")


class Budget:
    """Seconds that a benchmark may take: no case begins after they are over.

    Args:
      seconds: how many; a case that has begun is finished.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether no further case should begin."""
        return time.monotonic() > self.end


class Measured(NamedTuple):
    """What there is to time in a case.

    Attributes:
      program: ours, compiled.
      ours: runs it once and waits for it.
      rivals: makes each form's call; None where PyTorch is not installed.
      images: that one run of the program processes.
      runs: of the program, and of what a rival does, in each call.
    """

    program: Program
    ours: Call
    rivals: Mapping[str, Callable[[], Call]] | None
    images: int
    runs: int = 1


def measure(
    facts: Mapping[str, Any], measured: Measured, turns: int, side: int | None
) -> dict[str, Any]:
    """Times a case.

    Args:
      facts: what the case is, for the JSON; `dtype` chooses the ceiling.
      measured: what is timed.
      turns: how often.
      side: of the matrices of the ceiling; None takes what fills the device.

    Returns:
      The facts; compile_seconds; seconds and images_per_second; matrix_rate (FLOP/s of
      nothing but products) and bandwidth (bytes/s of nothing but a stream), which were
      taken in the same turns, and the program's matrix_share and bandwidth_share of
      them, each [median, lowest, highest]; memory, flop, products and bytes of the
      program; peak_bytes of the device so far; rivals by form, each with its
      seconds and ratio (its time, ours being 1); fastest, the form of the least ratio,
      or None; left_out, forms that failed and why.
    """
    measured.ours()  # its memory is its own before PyTorch takes what there is
    calls, left_out = _ready(measured.rivals or {})
    limits = make_ceilings(facts["dtype"], side)
    calls = {
        OURS: measured.ours,
        **calls,
        PRODUCTS: limits.matrix.call,
        STREAM: limits.bandwidth.call,
    }
    warm_up(calls)
    times = take_turns(
        {name: functools.partial(_call, call) for name, call in calls.items()},
        lambda: [None],
        turns,
        warm=True,
    )
    products, stream = times.pop(PRODUCTS), times.pop(STREAM)
    times = {name: [s / measured.runs for s in taken] for name, taken in times.items()}
    ours = times.pop(OURS)
    rivals = {
        form: {"seconds": spread(theirs), "ratio": spread(ratios(theirs, ours))}
        for form, theirs in times.items()
    }
    program = measured.program
    rates = [limits.matrix.amount / s for s in products]
    widths = [limits.bandwidth.amount / s for s in stream]
    passes = program.bytes_accessed
    return {
        **facts,
        "compile_seconds": program.compile_seconds,
        "seconds": spread(ours),
        "images_per_second": spread([measured.images / s for s in ours]),
        "products": program.products,
        "flop": program.flop,
        "bytes": passes,
        "memory": program.memory,
        "peak_bytes": peak_bytes(jax.devices()[0]),
        "matrix_rate": spread(rates),
        "bandwidth": spread(widths),
        "matrix_share": spread(ratios([program.products / s for s in ours], rates)),
        "bandwidth_share": passes
        and spread(ratios([passes / s for s in ours], widths)),
        "rivals": rivals,
        "fastest": min(
            rivals, key=lambda form: rivals[form]["ratio"].median, default=None
        ),
        "left_out": left_out,
    }


def warm_up(calls: Mapping[str, Call]) -> None:
    """Runs all calls in turns until the process wants no new memory.

    On a CPU, XLA and PyTorch share one heap. What finds its place there taken wants
    another from the system, which fills each page with zeros first: a second of what is
    a ResNet's training step of half a second otherwise, in up to four turns.

    Args:
      calls: what will be timed.
    """
    for _ in range(ROUNDS):
        before = _new_pages()
        for call in calls.values():
            call()
        if _new_pages() - before < FEW_PAGES:
            return


def _new_pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _call(call: Call, item: None) -> None:
    call()


def _ready(
    makers: Mapping[str, Callable[[], Call]],
) -> tuple[dict[str, Call], dict[str, str]]:
    """Makes and warms up the rivals; those that fail are left out, with the reason."""
    calls: dict[str, Call] = {}
    left_out: dict[str, str] = {}
    for form, make in makers.items():
        call: Call | None = None
        try:
            call = make()
            call()
        # A compiler that is missing, memory that is short: theirs to raise as they do.
        except Exception as error:
            first = str(error).strip().splitlines() or [""]
            left_out[form] = f"{type(error).__name__}: {first[0]}"[:200]
        if form not in left_out and call is not None:
            calls[form] = call
            continue
        call = None
        release()  # what the failed form held, now that nothing refers to it
    return calls, left_out


def run_cases(
    cases: Mapping[str, Callable[[], dict[str, Any]]], wanted: str, budget: Budget
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Runs cases in order, as long as the budget lasts and memory is enough.

    Args:
      cases: by name; each measures itself.
      wanted: names' parts, separated by commas, any of which a case must have; all
        cases if empty.
      budget: when to stop.

    Returns:
      What the cases returned, and why others were left out, by name.

    Raises:
      UserError: if a part is in no case's name.
    """
    parts = wanted.split(",") if wanted else []
    for part in parts:
        if not part or not any(part in name for name in cases):
            raise UserError(f"--cases={wanted}: {part!r} is in no case's name")
    chosen = [n for n in cases if not parts or any(part in n for part in parts)]
    found, left_out = [], {}
    for name in tqdm(chosen, unit="case", disable=None):
        if budget.is_over():
            left_out[name] = "the time was over (--minutes)"
            continue
        try:
            found.append({"name": name, **cases[name]()})
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not any(words in str(error) for words in NO_ROOM):
                raise
            left_out[name] = "does not fit into memory"
        gc.collect()
        release()
        jax.clear_caches()
    return found, left_out
