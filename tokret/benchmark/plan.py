"""Memory, work, least time and collectives of each chip of a pod that runs a config.

The program itself is compiled, by libtpu, on any machine; nothing runs. Its time is a
lower bound: the larger of its FLOP at the chip's published peak and its bytes at the
published bandwidth, as if everything else, communication too, overlapped with that.
FLOP are XLA's count of the program, in which recomputation counts again; a float32
product of several passes counts them all in search only, elsewhere such products are
few. A step with gradient accumulation counts as that many micro-batches, each with an
update, so its updates, about a hundredth of its bytes, count too often.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from tokret.benchmark import pod_programs
from tokret.benchmark.collectives import traffic
from tokret.benchmark.pod_programs import Workload
from tokret.benchmark.pods import (
    Pod,
    ProgramCost,
    TooLargeError,
    compile_for_pod,
    make_pod,
)
from tokret.benchmark.timing import environment
from tokret.config.tree import Config
from tokret.errors import UserError
from tokret.retrieval.exact_search.blocks import QUERIES
from tokret.runtime.chips import GIB, Chip

# GLDv2-clean: 1,580,470 photos of 81,313 classes, of which one in five is for
# validation; the author's log has 4,003 steps of 320 an epoch.
PHOTOS, CLASSES = 4003 * 320, 81_313
NEIGHBOURS = 100  # of each query
TRIES = 4  # compilations to find a batch that fits
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


class PlanRequest(NamedTuple):
    """What is compiled."""

    what: str  # train, extract or search
    name: str  # the config's, for the report
    topology: str  # the pod, as v5e:16x16
    model: int  # devices along the mesh's axis `model`
    # images of all devices, or queries; None takes the config's, and as many queries as
    # search takes at once
    batch_size: int | None
    photos: int | None = None  # to train with; None takes GLDv2-clean's
    classes: int | None = None  # of them; None takes GLDv2-clean's
    database: int = 1_000_000  # descriptors to search in
    store: str = "float32"  # their dtype


def total_cost(work: Workload, compiled: ProgramCost, chip: Chip) -> dict[str, Any]:
    """Sums up what a workload costs each chip of a pod.

    Returns:
      Bytes of arguments (with results and resident arrays) and temporaries; flop;
      accessed, bytes read and written; seconds at the peak rate (compute) and at the
      bandwidth (memory), and the larger of them; traffic, of collectives.
    """
    runs = work.times * work.iterations
    flop, accessed = runs * compiled.flop, runs * compiled.accessed
    compute, memory = work.passes * flop / chip.peak, accessed / chip.bandwidth
    return {
        "arguments": work.resident + compiled.arguments,
        "temporaries": compiled.temporaries,
        **{"flop": flop, "accessed": accessed, "compute": compute, "memory": memory},
        "seconds": max(compute, memory),
        "traffic": traffic(compiled.collectives, work.iterations),
    }


def lower(config: Config, request: PlanRequest, pod: Pod, batch_size: int) -> Workload:
    """Lowers the requested programs for a batch."""
    if request.what == "extract":
        return pod_programs.extraction(config, pod, batch_size=batch_size)
    if request.what == "search":
        found = (request.database, request.store, NEIGHBOURS)
        return pod_programs.search(config.model.dim, pod, *found, queries=batch_size)
    photos, classes = request.photos or PHOTOS, request.classes or CLASSES
    sized = dataclasses.replace(config, batch_size=batch_size)
    return pod_programs.training(sized, pod, classes=classes, photos=photos)


def attempt(
    lower: Callable[[int], Workload], batch_size: int, pod: Pod
) -> dict[str, Any]:
    """Compiles for a batch: whether it fits, and its cost or the memory it needs."""
    work = lower(batch_size)
    result: dict[str, Any] = {"batch_size": batch_size, "fits": False}
    try:
        compiled = compile_for_pod(work.lowered)
    except TooLargeError as error:
        return result | {"needed": error.needed, "available": error.available}
    cost = total_cost(work, compiled, pod.chip)
    needed = cost["arguments"] + cost["temporaries"]
    if needed > pod.chip.memory:
        return result | {"needed": needed, "available": pod.chip.memory}
    rate = work.units / cost["seconds"]
    result |= {**cost, "fits": True, "rate": rate}
    return result | ({} if work.peak is None else {"mfu": rate / work.peak})


def largest(
    attempt: Callable[[int], dict[str, Any]], found: dict[str, Any], step: int
) -> dict[str, Any] | None:
    """Searches for a smaller batch that fits, by compiling; None if a few do not.

    Memory is taken to grow with the batch, an estimate that is too small, since weights
    do not; and too large, since the compiler saves memory where it must: so it is
    tried, and lowered until one fits. Batches are multiples of `step`; `found` is the
    result of one that does not fit.
    """
    for _ in range(TRIES):
        fraction = found["available"] / found["needed"]
        batch = min(int(found["batch_size"] * fraction), found["batch_size"] - 1)
        batch -= batch % step
        if batch < step:
            return None
        found = attempt(batch)
        if found["fits"]:
            return found
    return None


def run(config: Config, request: PlanRequest) -> dict[str, Any]:
    """Compiles the request; if it does not fit, a smaller batch that does.

    Raises:
      UserError: for a wrong field or argument.
    """
    pod = make_pod(request.topology)
    data, numbers = config.data.name, (request.photos, request.classes)
    if request.what == "train" and data != "gldv2" and None in numbers:
        raise UserError(
            f"photos and classes are needed: data.name is {data!r}, whose numbers of "
            "photos and classes are not published"
        )
    mesh = dataclasses.replace(config.mesh, data=-1, model=request.model)
    config = dataclasses.replace(config, mesh=mesh)
    usual = {
        "train": config.batch_size,
        "search": QUERIES,
        "extract": config.evaluation.batch_size * len(pod.devices),
    }
    lowered = functools.partial(lower, config, request, pod)
    attempted = functools.partial(attempt, lowered, pod=pod)
    found = attempted(request.batch_size or usual[request.what])
    if not found["fits"]:
        parts = config.updates.grad_accum_steps if request.what == "train" else 1
        step, search = len(pod.devices) * parts, request.what == "search"
        # Of a search, the database does not fit, not the queries.
        found["largest"] = None if search else largest(attempted, found, step)
    return {
        "benchmark": "plan",
        **request._asdict(),
        **{"chips": len(pod.devices), "photos": request.photos or PHOTOS},
        **found,
        "environment": environment(*PACKAGES),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what `run` returns."""
    chips, model, search = result["chips"], result["model"], result["what"] == "search"
    batch = result["batch_size"]
    head = f"{result['what']} of {result['name']} on {result['topology']}: "
    head += f"{chips} chips" + (
        f"; {batch:,} queries, the best {NEIGHBOURS} of {result['database']:,} "
        f"descriptors in {result['store']}"
        if search
        else f", data {chips // model} x model {model}; batch {batch:,}, "
        f"{batch // chips} a chip"
    )
    if result["fits"]:
        return "\n".join([head, *_lines(result, result)])
    needed, available = _gib(result["needed"]), _gib(result["available"])
    lack = f"{head}\ndoes not fit: {needed} of {available} GiB a chip"
    if search:
        return lack + "; choose more chips, or another store"
    fitting = result["largest"]
    if fitting is None:
        return lack + f"; nor did a smaller batch in {TRIES} tries"
    most = f"the largest batch found that fits: {fitting['batch_size']:,}"
    return "\n".join([lack, most, *_lines(result, fitting)])


def _lines(result: dict[str, Any], cost: dict[str, Any]) -> list[str]:
    """Formats what a batch costs."""
    total = _gib(cost["arguments"] + cost["temporaries"])
    bound = "memory" if cost["memory"] > cost["compute"] else "products"
    unit = "queries/s" if result["what"] == "search" else "images/s"
    lines = [
        f"memory       {total} GiB a chip: arguments {_gib(cost['arguments'])}, "
        f"temporaries {_gib(cost['temporaries'])}",
        f"work         {cost['flop'] / 1e12:.3g} TFLOP and "
        f"{cost['accessed'] / 1e9:.4g} GB a chip",
        f"time         at least {cost['seconds'] * 1e3:.4g} ms, bound by {bound}: "
        f"{cost['compute'] * 1e3:.4g} ms at the peak rate, "
        f"{cost['memory'] * 1e3:.4g} ms at the bandwidth",
        f"rate         at most {cost['rate']:,.0f} {unit}"
        + (f", MFU {cost['mfu']:.0%}" if "mfu" in cost else ""),
    ]
    if result["what"] == "train":
        hours = result["photos"] / cost["rate"] / 3600
        lines.append(
            f"epoch        at least {hours:.3g} hours for {result['photos']:,} photos"
        )
    return lines + [f"collectives  {format_traffic(one)}" for one in cost["traffic"]]


def format_traffic(one: dict[str, Any]) -> str:
    """Formats what `traffic` returns of a kind and size of group."""
    group = f" among {one['group_size']}" if one["group_size"] else ""
    text = f"{one['number']} {one['kind']}{group}: {one['bytes'] / 1e6:.3g} MB"
    most = f", the largest {one['largest'] / 1e6:.3g} MB"
    return text + (most if one["number"] > 1 else "")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
