"""Tables of results: one row a system, and one more for each variant of its search.

The numbers of a system are fractions, by protocol for a benchmark with queries
({"easy": {"mAP": ..., "mP@10": ...}, "medium": ..., "hard": ...}), and under "all" for
leave-one-out ({"all": {"mAP": ..., "recall@1": ..., "mAP@10": ...}}). Beside them
may stand "reranked", "distractors" and "compressed", as `tokret.evaluation` measures
them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

WIDTH = 88  # of the text
PROTOCOLS = ("easy", "medium", "hard")
_SHOWN = ("mAP", "mP@10")  # in text, by protocol
_SHOWN_OF_ALL = ("mAP", "recall@1", "recall@5", "recall@10", "mAP@10")
_NUMBER_WIDTH = 7


@dataclass(frozen=True)
class TableRow:
    """One system on one benchmark."""

    system: str  # what was measured, such as "R50-Token"
    benchmark: str  # on what, such as "roxford5k"
    numbers: Mapping[str, Any]  # fractions by protocol, or those of leave-one-out


class Column(NamedTuple):
    """One metric of all rows of a table."""

    protocol: str  # "easy", "medium" or "hard"; "" for leave-one-out
    metric: str  # such as "mAP"
    values: list[float]  # one a row; NaN where nothing was measured
    best: float | None  # the largest of them; None where there is none


def table_rows(
    benchmark: str, numbers: Mapping[str, Mapping[str, Any]]
) -> list[TableRow]:
    """Lists systems by their numbers on a benchmark, each followed by its variants."""
    rows = []
    for system, found in numbers.items():
        name, variants = system, {system: found}
        if "reranked" in found:
            steps = [step["name"] for step in found["reranked"]["steps"]]
            variants[" + ".join([system, *steps])] = found["reranked"]["numbers"]
        if "distractors" in found:
            name = f"{system} + {_rounded(found['distractors']['count'])}"
            variants[name] = found["distractors"]["numbers"]
        for form, compressed in found.get("compressed", {}).items():
            variants[f"{name}, {form}"] = compressed["numbers"]
        rows += [
            TableRow(variant, benchmark, each.get("all", each))
            for variant, each in variants.items()
        ]
    return rows


def columns(rows: Sequence[TableRow]) -> list[Column]:
    """Lists the metrics of rows that are all of one benchmark, metric by metric."""
    protocols = [name for name in PROTOCOLS if name in rows[0].numbers]
    metrics = rows[0].numbers[protocols[0]] if protocols else rows[0].numbers
    found = []
    for metric in metrics:
        for protocol in protocols or [""]:
            values = [row.numbers.get(protocol, row.numbers)[metric] for row in rows]
            best = max((x for x in values if not math.isnan(x)), default=None)
            found.append(Column(protocol, metric, values, best))
    return found


def text_table(rows: Sequence[TableRow]) -> str:
    """Results of one benchmark as plain text, in percent; a dash for NaN.

    Lines have at most 88 characters, and there is no newline at the end.
    """
    by_protocol = "easy" in rows[0].numbers
    shown = _SHOWN if by_protocol else _SHOWN_OF_ALL
    # Columns in groups, two spaces before each: of a metric's protocols, or all.
    groups: dict[str, list[Column]] = {}
    for column in columns(rows):
        if column.metric in shown:
            group = column.metric if by_protocol else ""
            groups.setdefault(group, []).append(column)
    count = sum(map(len, groups.values()))
    space = WIDTH - _NUMBER_WIDTH * count - 2 * len(groups) - 2
    second = max(len("benchmark"), *(len(row.benchmark) for row in rows))
    second = min(second, space // 2)
    first = max(len("system"), *(len(row.system) for row in rows))
    first = min(first, space - second)

    def line(system: str, benchmark: str, cells: Sequence[Sequence[str]]) -> str:
        names = f"{_cut(system, first):{first}}  {_cut(benchmark, second):{second}}"
        parts = [
            "".join(f"{cell:>{_NUMBER_WIDTH}}" for cell in group) for group in cells
        ]
        return "  ".join([names, *parts])

    titles = [line("", "", [[_title(*group)] for group in groups.items()])]
    heads = [[_head(column) for column in group] for group in groups.values()]
    head = line("system", "benchmark", heads)
    body = [
        line(
            row.system,
            row.benchmark,
            [
                [_percent(each.values[place]) for each in group]
                for group in groups.values()
            ],
        )
        for place, row in enumerate(rows)
    ]
    above = titles if by_protocol else []
    return "\n".join([*above, head, "-" * len(head), *body])


def cost_lines(numbers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each system's re-ranking and compressed search cost, in a line each."""
    lines = [
        f"{system}, {_reranking_cost(step)}"
        for system, found in numbers.items()
        for step in found.get("reranked", {}).get("steps", [])
    ]
    return lines + [
        f"{system}, {form}: {cost['image_bytes']} bytes an image, "
        f"{cost['all_bytes'] / 1e6:.2f} MB, built in {cost['build_seconds']:.1f} s; a "
        f"query by {cost['by']} {1000 * cost['one'][0]:.2f} ms (p99 "
        f"{1000 * cost['one'][1]:.2f}), among all {1000 * cost['at_once']:.2f} ms"
        for system, found in numbers.items()
        for form, cost in found.get("compressed", {}).items()
    ]


def _reranking_cost(step: Mapping[str, Any]) -> str:
    peak = step["peak_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:.0f} MiB more at its peak"
    arguments = ", ".join(f"{key}={value}" for key, value in step["arguments"].items())
    return f"{step['name']} ({arguments}): {step['seconds']:.2f} s{memory}"


def _title(metric: str, group: Sequence[Column]) -> str:
    width = _NUMBER_WIDTH * len(group)
    return f" {metric} ".center(width - 2, "-").rjust(width)


def _head(column: Column) -> str:
    return column.protocol.title() or column.metric.replace("recall", "R")


def _rounded(count: int) -> str:
    """1,001,001 is 1M, as papers write it; small numbers stay."""
    if count >= 999_500:
        return f"{count / 1e6:.0f}M"
    return f"{count / 1e3:.0f}k" if count >= 1000 else str(count)


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"
