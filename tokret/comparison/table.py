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
    """A metric over the seeds, in percent.

    Attributes:
      mean: over the seeds.
      deviation: the sample standard deviation; 0 for one seed.
    """

    mean: float
    deviation: float

    def __str__(self) -> str:
        """Returns mean ± deviation."""
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


def figure(values: Sequence[float]) -> Figure:
    """Returns mean and deviation of a metric of several seeds, given as fractions."""
    percents = [100 * value for value in values]
    deviation = statistics.stdev(percents) if len(percents) > 1 else 0.0
    return Figure(statistics.mean(percents), deviation)


def figures(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Returns a row of the table, by heading.

    Args:
      seeds: for each, what eval.py wrote, by the name of the evaluation.
    """

    def value(
        seed: Mapping[str, Any], evaluation: str, reranked: bool, metric: str
    ) -> float:
        found = seed[evaluation]
        numbers = found["reranked"]["numbers"] if reranked else found
        return float(numbers["all"][metric])

    return {
        heading: figure([value(seed, *column) for seed in seeds])
        for heading, column in COLUMNS.items()
    }


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
