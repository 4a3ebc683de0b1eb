"""The report's page: metrics, curves, queries and the environment, in one file."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokret.data.views import View
from tokret.retrieval.answers import Answers, RankedItem, first_miss
from tokret.retrieval.html import pages
from tokret.retrieval.report import charts
from tokret.retrieval.tables import TableRow, columns


@dataclass(frozen=True)
class Summary:
    """What the page shows beside the queries."""

    system: str  # what was measured, such as "token"
    rows: Sequence[TableRow]  # the table of metrics, that system first
    environment: Mapping[str, Any]  # nested plain values, as in results.json


class Card(NamedTuple):
    """A query to show."""

    number: int  # its index in the benchmark
    view: View
    # x0, y0, x1, y1 as fractions of the photo's sides; None for the whole photo
    box: tuple[float, float, float, float] | None
    top: Sequence[RankedItem]  # the first of its ranking


class Thumbnail(NamedTuple):
    """A thumbnail."""

    width: int  # in pixels
    height: int  # in pixels
    # for the page's script: "photo", a WebP in base64, and of its tokens "maps", PNGs
    # in base64, and "fractions", percentages
    content: Mapping[str, Any]


def views_of(cards: Sequence[Card]) -> list[View]:
    """All photos of the queries, each once."""
    views = ((card.view, *(item.view for item in card.top)) for card in cards)
    return list(dict.fromkeys(itertools.chain.from_iterable(views)))


def render(
    answers: Answers,
    summary: Summary,
    cards: Sequence[Card],
    photos: Mapping[View, Thumbnail],
    selection: str,
) -> str:
    """Writes the page of at least one query, in the benchmark's order.

    Args:
      answers: of the system on the benchmark.
      summary: what the page shows beside the queries.
      cards: the queries.
      photos: of the queries, and maybe others.
      selection: which queries these are, in words.

    Returns:
      HTML that names no other file, with the photos of these queries only.
    """
    curves = {
        name: charts.curve_points(curve)
        for name, protocol in answers.protocols.items()
        if (curve := charts.precision_recall(protocol.ranks)) is not None
    }
    precision = answers.precision[answers.precision == answers.precision]
    views = views_of(cards)
    return pages.render(
        __package__,
        "report",
        answers=answers,
        summary=summary,
        cards=cards,
        photos=photos,
        indices={view: index for index, view in enumerate(views)},
        contents=[photos[view].content for view in views],
        selection=selection,
        table=columns(summary.rows),
        curves=curves,
        sorted_precision={"main": charts.sorted_points(precision)},
        sorted_labels=[round(len(precision) * tick / 4) for tick in range(5)],
        charts=charts,
        first_miss=first_miss,
        example=max(cards, key=lambda card: float(answers.precision[card.number])),
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
