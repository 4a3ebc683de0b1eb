"""The report's page: metrics, curves, queries and the environment, in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokret.retrieval.answers import Answers
from tokret.retrieval.html import pages
from tokret.retrieval.report import charts
from tokret.retrieval.report.cards import Card
from tokret.retrieval.report.curves import precision_recall
from tokret.retrieval.tables import TableRow, columns


@dataclass(frozen=True)
class Summary:
    """What the page shows beside the queries.

    Attributes:
      system: what was measured, such as "token".
      rows: the table of metrics, that system first.
      environment: nested plain values, as in results.json.
    """

    system: str
    rows: Sequence[TableRow]
    environment: Mapping[str, Any]


def render(
    answers: Answers,
    summary: Summary,
    cards: Sequence[Card],
    photos: Sequence[Mapping[str, Any]],
    selection: str,
) -> str:
    """Writes the page.

    Args:
      answers: of the system on the benchmark.
      summary: what the page shows beside the queries.
      cards: the queries, in the benchmark's order; at least one.
      photos: of each, "photo", a WebP in base64, and of its tokens "maps", PNGs in
        base64, and "fractions", percentages.
      selection: which queries these are, in words.

    Returns:
      HTML that names no other file.
    """
    curves = {
        name: charts.curve_points(curve)
        for name, protocol in answers.protocols.items()
        if (curve := precision_recall(protocol.ranks)) is not None
    }
    precision = answers.precision[answers.precision == answers.precision]
    return pages.render(
        __package__,
        "report",
        answers=answers,
        summary=summary,
        cards=cards,
        photos=photos,
        selection=selection,
        table=columns(summary.rows),
        curves=curves,
        sorted_precision={"main": charts.sorted_points(precision)},
        sorted_labels=[round(len(precision) * tick / 4) for tick in range(5)],
        steps=charts.STEPS,
        example=max(cards, key=lambda card: card.precision[answers.main]),
        environment=flattened(summary.environment),
    )


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested values as lines: {"device": {"kind": "cpu"}} -> {"device kind": "cpu"}."""
    lines: dict[str, str] = {}
    for name, value in values.items():
        title = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            lines |= flattened(value, title + " ")
        elif isinstance(value, list | tuple):
            lines[title] = ", ".join(
                f"{each:.4g}" if isinstance(each, float) else str(each)
                for each in value
            )
        else:
            lines[title] = str(value)
    return lines
