"""What the search benchmark measured, in plain text."""

from collections.abc import Mapping, Sequence
from typing import Any


def report(result: Mapping[str, Any]) -> str:
    """Says what `tokret.benchmark.search.run` returns."""
    database, where = result["database"], result["environment"]
    lines = [
        f"{result['queries']} queries among {database['rows']} descriptors of "
        f"{database['dims']} float32 ({database['gigabytes']:.2f} GB), the best "
        f"{result['k']}, {result['turns']} turns",
        f"{where['cores']} cores, {where['processor']}",
    ]
    if result["missing"]:
        lines.append(f"not installed, left out: {', '.join(result['missing'])}")
    lines += ["", *_exact(result["exact"])]
    evaluation = result["evaluation"]
    lines += [
        "",
        f"mAP of all queries, by ranks that are counted: "
        f"{_figures(evaluation['seconds'])} s, {100 * evaluation['mAP']:.2f} %; "
        f"peak memory {result['peak_gigabytes']:.2f} GB",
    ]
    if result["compressed"]:
        lines += ["", *_compressed(result)]
    lines += [""]
    lines += [
        f"target: {target['words']} {target['target']:.4g}: "
        f"{'reached' if target['met'] else 'missed:'} {target['reached']:.4g}"
        for target in result["targets"]
    ]
    return "\n".join(lines)


def _exact(exact: Mapping[str, Any]) -> list[str]:
    lines = [f"{'exact, ms a query':<22}{'':<10}{'time':>28}{'times as long':>28}"]
    for name, numbers in exact.items():
        for maker, seconds in numbers["seconds"].items():
            ratio = numbers["ratios"].get(maker)
            lines.append(
                f"{name:<22}{maker:<10}{_figures([1000 * s for s in seconds]):>28}"
                f"{_figures(ratio) if ratio else '1':>28}"
            )
    return lines


def _compressed(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'form':<8}{'by':<8}{'bytes':>7}{'MB':>9}{'build s':>9}{'one ms':>9}"
        f"{'p99 ms':>9}{'batch ms':>10}{'mAP %':>8}{'lost':>7}"
    ]
    exact = result["evaluation"]["mAP"]
    for form, row in result["compressed"].items():
        lines.append(
            f"{form:<8}{row['by']:<8}{row['image_bytes']:>7}"
            f"{row['all_bytes'] / 1e6:>9.1f}{row['build_seconds']:>9.1f}"
            f"{1000 * row['one'][0]:>9.1f}{1000 * row['one'][1]:>9.1f}"
            f"{1000 * row['at_once']:>10.2f}{100 * row['mAP']:>8.2f}"
            f"{100 * (exact - row['mAP']):>7.2f}"
        )
    return lines


def _figures(figures: Sequence[float]) -> str:
    median, low, high = (f"{figure:.2f}" for figure in figures)
    return f"{median} ({low} to {high})"
