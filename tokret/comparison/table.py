"""Means and standard deviations over seeds, as a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# By heading: the name of an evaluation, whether the metric is taken after re-ranking,
# and the metric.
COLUMNS = {
    "mAP": ("expansion", False, "mAP"),
    "recall@1": ("expansion", False, "recall@1"),
    "mAP, 3 scales": ("three", False, "mAP"),
    "recall@1, 3 scales": ("three", False, "recall@1"),
    "mAP, query expansion": ("expansion", True, "mAP"),
    "mAP, k-reciprocal": ("reciprocal", True, "mAP"),
}


class Figure(NamedTuple):
    """A metric in percent: mean and sample standard deviation over the seeds."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        """Returns mean ± deviation."""
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


def figure(values: Sequence[float]) -> Figure:
    """Returns mean and deviation of fractions; the deviation of one is 0."""
    percents = [100 * value for value in values]
    deviation = statistics.stdev(percents) if len(percents) > 1 else 0.0
    return Figure(statistics.mean(percents), deviation)


def figures(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Returns a table's row by heading, of each seed's results by evaluation."""
    row = {}
    for heading, (evaluation, reranked, metric) in COLUMNS.items():
        found = [seed[evaluation] for seed in seeds]
        if reranked:
            found = [numbers["reranked"]["numbers"] for numbers in found]
        row[heading] = figure([numbers["all"][metric] for numbers in found])
    return row


def markdown(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """Formats rows of heads, the best mAP first."""
    lines = [
        f"| head | {' | '.join(COLUMNS)} |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for head in sorted(rows, key=lambda name: -rows[name]["mAP"].mean):
        cells = " | ".join(str(rows[head][heading]) for heading in COLUMNS)
        lines.append(f"| {head} | {cells} |")
    return "\n".join(lines) + "\n"
