"""Tables of what the benchmarks of speed measured, in plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100


def figures(values: Sequence[float], digits: int = 2) -> str:
    """Says a median and its extremes."""
    median, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{median} ({low} to {high})"


def environment_line(environment: Mapping[str, Any]) -> str:
    """Says where and with what."""
    versions = " ".join(f"{name} {v}" for name, v in environment["versions"].items())
    return (
        f"{environment['device']} ({environment['processor']}, {environment['cores']} "
        f"cores); commit {environment['commit'][:12]}; {versions}"
    )


def cases_table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a case, and one for each of its rivals."""
    lines = [
        f"{'':<44}{'compile':>9}{'a call':>10}{'images/s':>10}{'memory':>9}"
        f"{'TFLOP':>8}{'GB':>8}{'of peak':>9}{'of mem.':>9}",
    ]
    for case in cases:
        lines.append(
            f"{case['name'][:43]:<44}{case['compile_seconds']:>7.1f} s"
            f"{_seconds(case['seconds'][0]):>10}{case['images_per_second'][0]:>10.2f}"
            f"{_giga(case['memory']):>9}{case['products'] / 1e12:>8.3f}"
            f"{_giga(case['bytes']):>8}{_percent(case['matrix_share']):>9}"
            f"{_percent(case['bandwidth_share']):>9}"
        )
        lines.append(
            f"  in the same turns: products {figures(_tera(case['matrix_rate']), 3)} "
            f"TFLOP/s, memory {figures(_tera(case['bandwidth']), 3)} TB/s"
        )
        if "masks_cost" in case:
            lines.append(f"  masks on: time {figures(case['masks_cost'])}, off being 1")
        for form, rival in case["rivals"].items():
            mark = " <- the fastest" if form == case["fastest"] else ""
            lines.append(
                f"  PyTorch, {form}: tokret is {figures(rival['ratio'])} times as "
                f"fast{mark}"
            )
        if not case["rivals"]:
            lines.append("  no PyTorch form was timed")
        lines += [f"  PyTorch, {n}: {why}" for n, why in case["left_out"].items()]
    return lines


def targets_table(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a target, and one for each case it speaks of."""
    lines = []
    for target in judged:
        bound = "at least" if target["least"] else "at most"
        where = f"[{target['device'] or 'any'}]"
        lines.append(
            f"{target['says'] + ':':<14}{where:<7} {target['words']}, {bound} "
            f"{target['limit']:g}"
        )
        for case in target["cases"]:
            short = case["figures"][0] / target["limit"] - 1
            lines.append(
                f"{'':<14}{case['case']}: {figures(case['figures'])}, "
                f"{100 * short:+.0f} % from the target"
            )
    return lines


def report(result: Mapping[str, Any]) -> str:
    """Says what one benchmark of speed measured, without the targets."""
    lines = [environment_line(result["environment"])]
    if "cases" in result:
        lines.append("")
        lines += cases_table(result["cases"])
        lines += [f"{name}: {why}" for name, why in result["left_out"].items()]
    elif "rows" in result:
        lines.append(
            f"{result['queries']} queries over {result['rows']:,} x {result['dims']} "
            f"bf16: {_seconds(result['search'][0])}, reading it once "
            f"{_seconds(result['read'][0])}: {figures(result['ratio'])} times"
        )
    elif "plain" in result:
        lines += [
            f"{name} step for {result['topology']}: {_giga(cost['bytes'])} GB and "
            f"{_giga(cost['flop'])} GFLOP an image, {_giga(cost['memory'])} GB a chip"
            for name, cost in (("tokret's", result["ours"]), ("plain", result["plain"]))
        ]
    else:
        lines.append(
            f"{result['trunk']} training step: compiled in {result['first'][0]:.1f} s "
            f"at first, in {result['second'][0]:.1f} s at a second start: "
            f"{figures(result['ratio'])} times the first"
        )
    if "cases" in result and not result["rival"]:
        lines.append("PyTorch is not installed: pip install 'tokret[torch]'")
    return "\n".join(lines)


def _tera(values: Sequence[float]) -> list[float]:
    return [value / 1e12 for value in values]


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"


def _percent(values: Sequence[float] | None) -> str:
    return "-" if not values else f"{100 * values[0]:.0f} %"
