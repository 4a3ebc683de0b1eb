"""Means and standard deviations over seeds, as a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A column of the table.

    Attributes:
      heading: of the column.
      measurement: the name of an evaluation.
      reranked: whether the metric is taken after re-ranking.
      metric: its name.
    """

    heading: str
    measurement: str
    reranked: bool
    metric: str

    def value(self, seed: Mapping[str, Any]) -> float:
        """Returns the metric of one seed, from what eval.py wrote, by evaluation."""
        found = seed[self.measurement]
        numbers = found["reranked"]["numbers"] if self.reranked else found
        return float(numbers["all"][self.metric])


COLUMNS = (
    Column("mAP", "expansion", False, "mAP"),
    Column("recall@1", "expansion", False, "recall@1"),
    Column("mAP, 3 scales", "three", False, "mAP"),
    Column("recall@1, 3 scales", "three", False, "recall@1"),
    Column("mAP, query expansion", "expansion", True, "mAP"),
    Column("mAP, k-reciprocal", "reciprocal", True, "mAP"),
)


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
    return {
        column.heading: figure([column.value(seed) for seed in seeds])
        for column in COLUMNS
    }


def markdown(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """Formats rows of heads, the best mAP first."""
    headings = [column.heading for column in COLUMNS]
    lines = [
        f"| head | {' | '.join(headings)} |",
        "| --- |" + " --- |" * len(headings),
    ]
    for head in sorted(rows, key=lambda name: -rows[name]["mAP"].mean):
        cells = " | ".join(str(rows[head][heading]) for heading in headings)
        lines.append(f"| {head} | {cells} |")
    return "\n".join(lines) + "\n"
