"""What a pod would do with a config: memory, work, time, collectives, of each chip.

The program itself is compiled, by libtpu, on any machine; nothing runs. Its time is a
bound: the larger of its FLOP at the chip's published peak and its bytes at the
published bandwidth, as if all else, communication too, hid behind that. FLOP are XLA's
count of the program, in which what is computed again counts again; of a float32 product
in several passes only search counts each, elsewhere such products are few. A step in
parts counts as so many times one part with an update, so its updates, about a hundredth
of its bytes, count too often.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tokret.benchmark.collectives import Traffic, traffic
from tokret.benchmark.pod_programs import (
    Sought,
    Work,
    extraction,
    searching,
    training,
)
from tokret.benchmark.pods import (
    Compiled,
    Pod,
    TooLargeError,
    compile_for_pod,
    find_pod,
)
from tokret.benchmark.turns import environment
from tokret.configuration import Config, part
from tokret.errors import UserError
from tokret.retrieval.search import QUERIES
from tokret.runtime.chips import Chip

# GLDv2-clean: 1,580,470 photos of 81,313 classes, of which one in five is for
# validation; the author's log has 4,003 steps of 320 an epoch.
PHOTOS, CLASSES = 4003 * 320, 81_313
NEIGHBOURS = 100  # that each query gets
TRIES = 4  # compilations to find a batch that fits
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


class Request(NamedTuple):
    """What is asked.

    Attributes:
      what: train, extract or search.
      name: the config's, as it was named.
      topology: the pod, as v5e:16x16.
      model: devices along the mesh's axis `model`.
      batch_size: images of all devices, or queries; None takes the config's, and as
        many queries as search asks at once.
      photos: to train with; None takes GLDv2-clean's.
      classes: of them; None takes GLDv2-clean's.
      database: descriptors to search in.
      store: their dtype.
    """

    what: str
    name: str
    topology: str
    model: int
    batch_size: int | None
    photos: int | None = None
    classes: int | None = None
    database: int = 1_000_000
    store: str = "float32"

    @property
    def sought(self) -> Sought:
        """What a search is for."""
        return Sought(self.database, self.store, NEIGHBOURS)


class Figures(NamedTuple):
    """What some work costs each chip of a pod.

    Attributes:
      arguments: bytes given, given back and held.
      temporaries: bytes needed meanwhile.
      flop: floating-point operations.
      accessed: bytes read and written.
      compute: seconds at the peak rate.
      memory: seconds at the bandwidth.
      traffic: collectives.
    """

    arguments: int
    temporaries: int
    flop: float
    accessed: float
    compute: float
    memory: float
    traffic: list[Traffic]

    @property
    def seconds(self) -> float:
        """The bound."""
        return max(self.compute, self.memory)


def figures(work: Work, compiled: Sequence[Compiled], chip: Chip) -> Figures:
    """Sums up what the programs of some work cost."""
    flop = accessed = products = 0.0
    found: list[Traffic] = []
    for one, each in zip(work.parts, compiled, strict=True):
        flop += one.times * one.turns * each.flop
        products += one.times * one.turns * one.passes * each.flop
        accessed += one.times * one.turns * each.accessed
        found += traffic(each.collectives, one.turns)
    return Figures(
        arguments=work.held + max(each.arguments for each in compiled),
        temporaries=max(each.temporaries for each in compiled),
        flop=flop,
        accessed=accessed,
        compute=products / chip.peak,
        memory=accessed / chip.bandwidth,
        traffic=found,
    )


def with_batch(config: Config, request: Request, pod: Pod, batch_size: int) -> Work:
    """Lowers what is asked for a batch."""
    if request.what == "extract":
        return extraction(config, pod, batch_size=batch_size)
    if request.what == "search":
        return searching(config, pod, request.sought, queries=batch_size)
    photos, classes = request.photos or PHOTOS, request.classes or CLASSES
    sized = {**config, "batch_size": batch_size}
    return training(sized, pod, classes=classes, photos=photos)


def attempt(lower: Callable[[int], Work], batch: int, pod: Pod) -> dict[str, Any]:
    """Compiles for a batch and says whether it fits, and what it costs or lacks."""
    work = lower(batch)
    result: dict[str, Any] = {"batch_size": batch}
    try:
        compiled = [compile_for_pod(each.lowered) for each in work.parts]
    except TooLargeError as error:
        lack = {"needed": error.needed, "available": error.available}
        return result | {"fits": False, **lack}
    cost = figures(work, compiled, pod.chip)
    if cost.arguments + cost.temporaries > pod.chip.memory:
        lack = {"needed": cost.arguments + cost.temporaries}
        return result | {"fits": False, **lack, "available": pod.chip.memory}
    rate = work.units / cost.seconds
    result |= {"fits": True, **cost._asdict(), "seconds": cost.seconds, "rate": rate}
    result["traffic"] = [each._asdict() for each in cost.traffic]
    return result | ({} if work.peak is None else {"mfu": rate / work.peak})


def largest(
    tried: Callable[[int], dict[str, Any]], found: dict[str, Any], step: int
) -> dict[str, Any] | None:
    """Looks for a smaller batch that fits, by compiling.

    Memory is taken to grow with the batch, which errs on the small side: weights do
    not; and the compiler saves where it must, which errs on the other: so the estimate
    is tried, and lowered until one fits.

    Args:
      tried: compiles for a batch.
      found: what a batch that does not fit gave.
      step: batches are multiples of it.

    Returns:
      What the first batch that fits gave; None if none of a few did.
    """
    for _ in range(TRIES):
        share = found["available"] / found["needed"]
        batch = min(int(found["batch_size"] * share), found["batch_size"] - 1)
        batch -= batch % step
        if batch < step:
            return None
        found = tried(batch)
        if found["fits"]:
            return found
    return None


def run(config: Config, request: Request) -> dict[str, Any]:
    """Compiles what is asked; if it does not fit, what would.

    Args:
      config: the whole config.
      request: what is asked; its `model` takes the place of `config.mesh`'s.

    Raises:
      UserError: for a field or flag that cannot be.
    """
    pod = find_pod(request.topology)
    data = part(config, "data", dict).get("name")
    if request.what == "train" and data != "gldv2":
        if request.photos is None or request.classes is None:
            raise UserError(
                f"config.data.name is {data!r}, of which no numbers are published: say "
                "--photos=N and --classes=N"
            )
    mesh = {**part(config, "mesh", dict), "data": -1, "model": request.model}
    config = {**config, "mesh": mesh}
    batch = request.batch_size
    if batch is None and request.what == "train":
        batch = part(config, "batch_size", int)
    elif batch is None and request.what == "search":
        batch = QUERIES
    elif batch is None:
        views = part(part(config, "evaluation", dict), "batch_size", int)
        batch = views * len(pod.devices)
    lower = functools.partial(with_batch, config, request, pod)
    tried = functools.partial(attempt, lower, pod=pod)
    found = tried(batch)
    if not found["fits"] and request.what == "search":
        found["largest"] = None  # what does not fit is the database, not the queries
    elif not found["fits"]:
        parts = part(config, "updates", dict)["grad_accum_steps"]
        step = len(pod.devices) * (parts if request.what == "train" else 1)
        found["largest"] = largest(tried, found, step)
    return {
        "benchmark": "plan",
        **request._asdict(),
        "chips": len(pod.devices),
        "photos": request.photos or PHOTOS,
        **found,
        "environment": environment(*PACKAGES),
    }
