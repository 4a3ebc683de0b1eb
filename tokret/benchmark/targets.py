"""What was to be reached, and what was.

A target is judged by what a benchmark's JSON holds; where the cases it speaks of were
not measured, or not on its kind of machine, it says so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Result = Mapping[str, Any]
NOT_MEASURED = "not measured"


class Reached(NamedTuple):
    """A case's figure.

    Attributes:
      case: its name.
      figures: median, lowest and highest.
    """

    case: str
    figures: Sequence[float]


class Target(NamedTuple):
    """A figure that was to be reached.

    Attributes:
      words: what is to be reached.
      benchmark: whose result is looked at.
      device: part of the name of the device it is for, or "" for any.
      limit: the figure.
      least: whether it is the least that suffices, not the most.
      find: the figures reached, from the benchmark's result.
    """

    words: str
    benchmark: str
    device: str
    limit: float
    least: bool
    find: Callable[[Result], list[Reached]]


def _chosen(result: Result, **facts: Any) -> list[Mapping[str, Any]]:
    """The cases whose facts are among those asked for."""
    return [
        case
        for case in result["cases"]
        if all(case[name] in among for name, among in facts.items())
    ]


def _against_fastest(**facts: Any) -> Callable[[Result], list[Reached]]:
    """Finds how many times as fast as the fastest PyTorch form chosen cases are."""

    def find(result: Result) -> list[Reached]:
        return [
            Reached(case["name"], case["rivals"][case["fastest"]]["ratio"])
            for case in _chosen(result, **facts)
            if case["fastest"] is not None
        ]

    return find


def _figure(name: str, **facts: Any) -> Callable[[Result], list[Reached]]:
    """Finds a figure of the chosen cases."""

    def find(result: Result) -> list[Reached]:
        return [Reached(case["name"], case[name]) for case in _chosen(result, **facts)]

    return find


def _best_batch(
    find: Callable[[Result], list[Reached]],
) -> Callable[[Result], list[Reached]]:
    """Of the cases found, the best one alone."""

    def best(result: Result) -> list[Reached]:
        return sorted(find(result), key=lambda reached: reached.figures[0])[-1:]

    return best


def _second_start(result: Result) -> list[Reached]:
    return [Reached(f"{result['trunk']} training step", result["ratio"])]


_SQUARE = {"side": ([512, 512],)}
_R101 = {"trunk": ("resnet101",), "dtype": ("bfloat16",)}
TARGETS = (
    Target(
        "inference, ResNets, float32, batch 1 and 8, 512 px: times as fast as the "
        "fastest PyTorch form",
        *("inference", "cpu", 1.0, True),
        _against_fastest(
            trunk=("resnet50", "resnet101"), dtype=("float32",), batch=(1, 8), **_SQUARE
        ),
    ),
    Target(
        "training step, tiny and ResNet-50 trunks, 128 and 224 px: times as fast as "
        "the fastest PyTorch form",
        *("train", "cpu", 1.0, True),
        _against_fastest(trunk=("tiny", "resnet50"), side=([128, 128], [224, 224])),
    ),
    Target(
        "three-scale extraction, 64 mixed shapes, longest side 512: times as fast as "
        "PyTorch one at a time",
        *("extract", "cpu", 1.3, True),
        _against_fastest(photos=(64,), longest_side=(512,)),
    ),
    Target(
        "training step, ResNet-101, bf16, best batch, 512 px: times as fast as the "
        "fastest PyTorch form",
        *("train", "H100", 1.3, True),
        _best_batch(_against_fastest(**_R101, **_SQUARE)),
    ),
    Target(
        "training step, ResNet-101, bf16, best batch, 512 px: share of the measured "
        "matrix rate",
        *("train", "H100", 0.25, True),
        _best_batch(_figure("matrix_share", **_R101, **_SQUARE)),
    ),
    Target(
        "three-scale extraction, ResNet-101, mixed shapes, longest side 1024: times as "
        "fast as the released loop",
        *("extract", "H100", 10.0, True),
        _against_fastest(**_R101, longest_side=(1024,)),
    ),
    Target(
        "three-scale extraction: time with masks, 1 without",
        *("extract", "H100", 1.05, False),
        _figure("masks_cost", **_R101, longest_side=(1024,)),
    ),
    Target(
        "70 queries over 1,000,000 x 1024 bf16 on the device: time of reading it once "
        "being 1",
        *("scan", "H100", 2.0, False),
        lambda result: [Reached(f"{result['rows']:,} rows", result["ratio"])],
    ),
    Target(
        "bytes of the released R101 step at 512 px, bf16, 64 images a v5e chip: plain "
        "Flax's being 1",
        *("bytes", "", 0.85, False),
        lambda result: [Reached(result["topology"], result["ratio"])],
    ),
    Target(
        "a second start of the same program: time to compile, the first one's being 1",
        *("start", "", 0.25, False),
        _second_start,
    ),
)


def judge(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Judges every target.

    Args:
      results: by benchmark, as its JSON holds them; those that were not run are not
        there.

    Returns:
      Of each target: words, device, limit, least; `cases`, of which each has case,
      figures and met; and `says`: "reached", "missed" or "not measured".
    """
    judged = []
    for target in TARGETS:
        result = results.get(target.benchmark)
        cases = []
        if result is not None and target.device.lower() in _device(result).lower():
            for reached in target.find(result):
                median = reached.figures[0]
                met = median >= target.limit if target.least else median <= target.limit
                cases.append(
                    {
                        "case": reached.case,
                        "figures": list(reached.figures),
                        "met": met,
                    }
                )
        says = NOT_MEASURED
        if cases:
            says = "reached" if all(case["met"] for case in cases) else "missed"
        judged.append(
            {
                "words": target.words,
                "device": target.device,
                "limit": target.limit,
                "least": target.least,
                "cases": cases,
                "says": says,
            }
        )
    return judged


def _device(result: Result) -> str:
    return str(result["environment"]["device"])
