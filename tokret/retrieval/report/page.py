"""The page: numbers, curves, queries and how they were made, in one file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from tokret.retrieval.answers import Answers, Costs
from tokret.retrieval.report import drawings
from tokret.retrieval.report.cards import Card, card_html
from tokret.retrieval.report.curves import precision_recall
from tokret.retrieval.report.text import escaped, percent, script_json, size_in_words
from tokret.retrieval.results import TableRow

PROTOCOLS = {
    "medium": (
        "In percent. Easy asks for the easy positives alone, Hard for the hard ones, "
        "Medium for both; what a protocol does not ask for is passed over, as junk "
        "is. Average precision by the trapezoid rule."
    ),
    "all": (
        "In percent. Every photo asks all the others; those of its class are right. "
        "Average precision without interpolation."
    ),
}
KINDS = (
    '<span class="junk"><b class="mark"></b> junk, takes no place</span> '
    '<span><svg aria-hidden="true"><path class="at easy" d="M6 1V19"/></svg>'
    "easy positive</span> "
    '<span><svg aria-hidden="true"><path class="at hard" d="M6 9V19"/></svg>'
    "hard positive, at its rank</span>"
)
NO_MAPS = "<p>The head <i>{}</i> has no maps of tokens to show.</p>"
LOOKS = (
    "<p>At every position the tokens share the photo among them: where a token's "
    "weight is small, its picture is dark. Choose any photo below to see its own. "
    "This is query <bdi>{}</bdi>; the percentages are each token's share of the "
    'positions.</p><div class="looks" data-example="q{}"></div>'
)


@dataclass(frozen=True)
class Summary:
    """What stands around the queries.

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
      answers: what it is about.
      summary: what stands around the queries.
      cards: the queries, in the benchmark's order; at least one.
      photos: of each, "photo", a WebP in base64, and of its tokens "maps", PNGs in
        base64, and "shares", percentages.
      selection: which queries these are, in words.

    Returns:
      HTML that names no other file.
    """
    style, script = _part("page.css"), _part("page.js")
    lines = {
        name: curve
        for name, protocol in answers.protocols.items()
        if (curve := precision_recall(protocol.ranks)) is not None
    }
    example = max(cards, key=lambda card: float(answers.precision[card.number]))
    shown = LOOKS.format(escaped(example.tile.name), example.number)
    return Template(_part("page.html")).substitute(
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
        system=escaped(summary.system),
        benchmark=escaped(summary.rows[0].benchmark),
        lead=_lead(answers, summary),
        table=metrics_table(summary.rows),
        protocol=PROTOCOLS[answers.main],
        curves=drawings.curves(lines, "precision over recall, by protocol"),
        legend=_legend(list(lines), summary.rows[0]),
        falling=drawings.falling(
            answers.precision[answers.precision == answers.precision],
            "average precision of each query, best first",
        ),
        main=escaped(answers.main),
        tokens=(
            shown
            if any(photo["maps"] for photo in photos)
            else NO_MAPS.format(escaped(summary.system))
        ),
        selection=escaped(selection),
        kinds=KINDS if answers.main == "medium" else "",
        cards="\n".join(card_html(card, answers) for card in cards),
        facts=_facts(answers.costs, len(answers.database), summary.environment),
        photos=script_json(list(photos)),
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What the page's policy knows its own style and script by."""
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _lead(answers: Answers, summary: Summary) -> str:
    numbers = summary.rows[0].numbers
    named = f"mAP {escaped(answers.main).title()}" if "easy" in numbers else "mAP"
    value = numbers.get(answers.main, numbers)["mAP"]
    return (
        f"<bdi>{escaped(summary.system)}</bdi>: {named} <b>{percent(value)}</b>, "
        f"{len(answers.queries):,} queries to {len(answers.database):,} photos."
    )


def metrics_table(rows: Sequence[TableRow]) -> str:
    """The table of metrics, in percent.

    Args:
      rows: all of one benchmark.

    Returns:
      HTML; the best number of each column is marked where there are several rows.
    """
    levels = [name for name in ("easy", "medium", "hard") if name in rows[0].numbers]
    measures = list(rows[0].numbers[levels[0]] if levels else rows[0].numbers)
    keys = [(level, measure) for measure in measures for level in levels or [""]]
    values = [
        [row.numbers.get(level, row.numbers)[name] for level, name in keys]
        for row in rows
    ]
    columns = zip(*values, strict=True)
    best = [max((x for x in column if x == x), default=None) for column in columns]
    titles = "".join(
        f'<th scope="colgroup" colspan="{len(levels)}">{escaped(measure)}</th>'
        for measure in measures
    )
    heads = "".join(
        f'<th scope="col">{escaped(level.title() or measure)}</th>'
        for level, measure in keys
    )
    above = f"<tr><td></td>{titles}</tr>" if levels else ""
    body = []
    for row, mine in zip(rows, values, strict=True):
        cells = "".join(
            f"<td{_mark(value == top and len(rows) > 1)}>{percent(value)}</td>"
            for value, top in zip(mine, best, strict=True)
        )
        name = f"<bdi>{escaped(row.system)}</bdi>"
        body.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        f'<table><thead>{above}<tr><th scope="col">system</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _mark(best: bool) -> str:
    return ' class="best"' if best else ""


def _legend(names: Sequence[str], row: TableRow) -> str:
    """What each curve is, with its mAP."""
    items = "".join(
        f'<li><svg aria-hidden="true"><path class="line {escaped(name)}" d="M0 5H34"/>'
        f"</svg>{escaped(name.title())}, mAP "
        f"{percent(row.numbers.get(name, row.numbers)['mAP'])}</li>"
        for name in names
    )
    return f'<ul class="legend">{items}</ul>'


def _facts(costs: Costs, items: int, environment: Mapping[str, Any]) -> str:
    """Costs on the left, environment on the right."""
    rate = costs.described / max(costs.extraction_seconds, 1e-9)
    told = {
        "extraction": (
            f"{costs.described:,} photos in {costs.extraction_seconds:.1f} s, "
            f"{rate:,.1f} a second"
            if costs.described
            else "none, all descriptors lay in the store"
        ),
        "search": f"{costs.search_seconds:.2f} s from descriptors to all ranks",
        "descriptor": f"{costs.dims} dimensions, {size_in_words(costs.item_bytes)}",
        "database": (
            f"{items:,} descriptors, {size_in_words(items * costs.item_bytes)}"
        ),
    }
    note = '<p class="note">Once, with compilation; not a benchmark.</p>'
    return (
        f"<div><h3>Time and size</h3>{_list(told)}{note}</div>"
        f"<div><h3>Environment</h3>{_list(flattened(environment))}</div>"
    )


def _list(facts: Mapping[str, object]) -> str:
    entries = "".join(
        f"<dt>{escaped(name)}</dt><dd><bdi>{escaped(value)}</bdi></dd>"
        for name, value in facts.items()
    )
    return f"<dl>{entries}</dl>"


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


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
