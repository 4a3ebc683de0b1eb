"""What seeds have measured: means, spreads, a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Column(NamedTuple):
    """Where a figure is found.

    Attributes:
      heading: of the column.
      measurement: its name.
      reranked: whether the numbers after re-ranking are meant.
      metric: its name.
    """

    heading: str
    measurement: str
    reranked: bool
    metric: str

    def of(self, seed: Mapping[str, Any]) -> float:
        """The figure of one seed, by the name of its measurement what eval.py wrote."""
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
      mean: of the seeds.
      deviation: the sample's standard deviation; 0 of one seed.
    """

    mean: float
    deviation: float

    def __str__(self) -> str:
        """The mean, and how far seeds are from it."""
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


def figure(values: Sequence[float]) -> Figure:
    """Sums up a metric of several seeds, given as shares of 1."""
    percents = [100 * value for value in values]
    deviation = statistics.stdev(percents) if len(percents) > 1 else 0.0
    return Figure(statistics.mean(percents), deviation)


def figures(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """The columns of a head's row.

    Args:
      seeds: for each, by the name of its measurement, what eval.py wrote.
    """
    return {
        column.heading: figure([column.of(seed) for seed in seeds])
        for column in COLUMNS
    }


def markdown(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """Rows of heads, the best mAP first."""
    headings = [column.heading for column in COLUMNS]
    lines = [
        f"| head | {' | '.join(headings)} |",
        "| --- |" + " --- |" * len(headings),
    ]
    for head in sorted(rows, key=lambda name: -rows[name]["mAP"].mean):
        cells = " | ".join(str(rows[head][heading]) for heading in headings)
        lines.append(f"| {head} | {cells} |")
    return "\n".join(lines) + "\n"
