"""Figures that were to be reached, and those that were.

A target is judged by a benchmark's JSON; without a measurement of its cases, on its
kind of device, it is "not measured".
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tokret.benchmark.timing import format_spread

Result = Mapping[str, Any]
Reached = tuple[str, Sequence[float]]  # a case's name; median, lowest, highest
Find = Callable[[Result], list[Reached]]


class Target(NamedTuple):
    """A figure that was to be reached."""

    words: str  # what is to be reached
    benchmark: str  # whose result is judged
    device: str  # in the name of the device it is for, or "" for any
    limit: float  # the figure
    at_least: bool  # whether figures must be at least the limit, not at most
    find: Find  # the figures reached, from the benchmark's result


def _chosen(result: Result, **facts: Any) -> list[Mapping[str, Any]]:
    """Returns the cases each of whose facts is one of those given."""
    wanted = facts.items()
    return [c for c in result["cases"] if all(c[name] in some for name, some in wanted)]


def _against_fastest(**facts: Any) -> Find:
    """How many times as fast as the fastest PyTorch form the chosen cases are."""
    return lambda result: [
        (case["name"], case["rivals"][case["fastest"]]["ratio"])
        for case in _chosen(result, **facts)
        if case["fastest"] is not None
    ]


def _figure(name: str, **facts: Any) -> Find:
    return lambda result: [
        (case["name"], case[name]) for case in _chosen(result, **facts)
    ]


def _best_batch(find: Find) -> Find:
    return lambda result: sorted(find(result), key=lambda each: each[1][0])[-1:]


def _pq128(figure: Callable[[Any], float]) -> Find:
    return lambda result: [
        (form, [float(figure(row))] * 3)
        for form, row in result["compressed"].items()
        if form == "pq128"
    ]


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
        "training step, ResNet-101, bf16, best batch, 512 px: fraction of the measured "
        "matrix rate",
        *("train", "H100", 0.25, True),
        _best_batch(_figure("matrix_fraction", **_R101, **_SQUARE)),
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
        lambda result: [(f"{result['rows']:,} rows", result["ratio"])],
    ),
    Target(
        "bytes of the released R101 step at 512 px, bf16, 64 images a v5e chip: plain "
        "Flax's being 1",
        *("bytes", "", 0.85, False),
        lambda result: [(result["topology"], result["ratio"])],
    ),
    Target(
        "a second start of the same program: time to compile, the first one's being 1",
        *("start", "", 0.25, False),
        lambda result: [(f"{result['trunk']} training step", result["ratio"])],
    ),
    Target(
        "training's views on one core: times as fast as Pillow",
        *("input", "", 1.8, True),
        lambda result: [("whole", result["steps"]["whole"]["ratio"])],
    ),
    Target(
        "training's views on one core: time, decoding plus INTER_AREA being 1",
        *("input", "", 1.15, False),
        lambda result: [("whole", result["beside_inter_area"])],
    ),
    Target(
        "exact search: times as fast as NumPy and faiss",
        *("search", "", 1.0, True),
        lambda result: [
            (f"{name}, {rival}", ratio)
            for name, numbers in result["exact"].items()
            for rival, ratio in numbers["ratios"].items()
        ],
    ),
    Target(
        "exact search: peak memory beside the database, GB",
        *("search", "", 1.0, False),
        lambda r: [("peak", [r["peak_gigabytes"] - r["database"]["gigabytes"]] * 3)],
    ),
    # As published for product codes of 128 bytes among R1M's 1,006,322 images.
    Target(
        "search of pq128: memory, GB",
        *("search", "", 0.13, False),
        _pq128(lambda row: row["all_bytes"] / 1e9),
    ),
    Target(
        "search of pq128: one query, s",
        *("search", "", 0.1042, False),
        _pq128(lambda row: row["one"][0]),
    ),
)


def judge(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Judges every target by results, as their JSONs have them, by benchmark.

    Returns:
      Of each target: words, device, limit, at_least; `cases`, each with case, figures
      and met; and `verdict`: "reached", "missed" or "not measured".
    """
    judged = []
    for target in TARGETS:
        result = results.get(target.benchmark)
        cases = []
        device = str(result["environment"].get("device", "cpu")) if result else ""
        if result and target.device.lower() in device.lower():
            for name, figures in target.find(result):
                compare = operator.ge if target.at_least else operator.le
                met = compare(figures[0], target.limit)
                cases.append({"case": name, "figures": list(figures), "met": met})
        verdict = "reached" if all(case["met"] for case in cases) else "missed"
        verdict = verdict if cases else "not measured"
        kept = ("words", "device", "limit", "at_least")
        facts = {name: getattr(target, name) for name in kept}
        judged.append({**facts, "cases": cases, "verdict": verdict})
    return judged


def targets_table(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats one line a target, and one for each of its cases."""
    lines = []
    for target in judged:
        bound = "at least" if target["at_least"] else "at most"
        where = f"[{target['device'] or 'any'}]"
        lines.append(
            f"{target['verdict'] + ':':<14}{where:<7} {target['words']}, {bound} "
            f"{target['limit']:g}"
        )
        for case in target["cases"]:
            short = case["figures"][0] / target["limit"] - 1
            lines.append(
                f"{'':<14}{case['case']}: {format_spread(case['figures'])}, "
                f"{100 * short:+.0f} % from the target"
            )
    return lines
