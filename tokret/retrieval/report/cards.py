"""One query of the page: its photo, its first ten, and where its positives lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokret.retrieval.answers import Answers, Ranks, Verdict, first_miss
from tokret.retrieval.report.drawings import strip
from tokret.retrieval.report.text import escaped, percent

NAMED = 12  # ranks of positives that are told in words
WORDS: Mapping[Verdict, str] = {"hit": "hit", "miss": "miss", "junk": "junk"}


@dataclass(frozen=True)
class Tile:
    """A photo in the page.

    Attributes:
      photo: its place in the page's table of photos.
      width: of the thumbnail, in pixels.
      height: the same.
      name: of the file.
      label: its class; "" for none.
    """

    photo: int
    width: int
    height: int
    name: str
    label: str


@dataclass(frozen=True)
class Card:
    """A query to show.

    Attributes:
      number: its place in the benchmark.
      tile: its photo.
      box: shares of the photo's sides x0, y0, x1, y1; None where all of it asks.
      top: the first of its ranking, best first: photo, verdict, score.
    """

    number: int
    tile: Tile
    box: tuple[float, float, float, float] | None
    top: Sequence[tuple[Tile, Verdict, float]]


def places(verdicts: Sequence[Verdict]) -> list[int | None]:
    """Ranks from 1 of the first items of a ranking; junk takes no place."""
    counted = np.cumsum([verdict != "junk" for verdict in verdicts]).tolist()
    return [
        None if verdict == "junk" else place
        for verdict, place in zip(verdicts, counted, strict=True)
    ]


def card_html(card: Card, answers: Answers) -> str:
    """Writes a query.

    Args:
      card: what to show.
      answers: where it comes from.

    Returns:
      An article; every name in it is escaped.
    """
    tile, precision = card.tile, float(answers.precision[card.number])
    label = f' <span class="note"><bdi>{escaped(tile.label)}</bdi></span>'
    places_ = places([verdict for _, verdict, _ in card.top])
    top = "".join(
        _result(*each, place) for each, place in zip(card.top, places_, strict=True)
    )
    words = f"query, average precision {percent(precision, 1)} %"
    asked = _button(tile, card.box, words, "asked")
    return (
        f'<article class="query" id="q{card.number}" data-precision="{precision:.6f}">'
        f"<header><h3><bdi>{escaped(tile.name)}</bdi>{label if tile.label else ''}</h3>"
        f"<p>{_precisions(card.number, answers)}</p></header>"
        f'{asked}<ol class="top">{top}</ol>'
        f'<div class="where">{_where(card.number, answers)}</div></article>'
    )


def _precisions(query: int, answers: Answers) -> str:
    """Average precision by the main protocol, then by the others."""
    main = f"AP <b>{percent(float(answers.precision[query]), 1)}</b>"
    others = [
        f"{escaped(name)} {percent(float(protocol.average_precision[query]), 1)}"
        for name, protocol in answers.protocols.items()
        if name != answers.main
    ]
    if not others:
        return main
    return (
        f'{main} <span class="note">{escaped(answers.main)}; {", ".join(others)}</span>'
    )


def _result(tile: Tile, verdict: Verdict, score: float, place: int | None) -> str:
    where = "no place" if place is None else f"rank {place}"
    words = f"{where}, {WORDS[verdict]}, similarity {score:.3f}"
    if tile.label:
        words += f", {tile.label}"
    number = "" if place is None else f"{place}"
    return (
        f'<li class="{verdict}">{_button(tile, None, words, "")}'
        f'<span class="place"><span><b class="mark"></b>'
        f'<span class="words">{WORDS[verdict]}</span> '
        f'<span class="rank">{number}</span></span>'
        f'<span class="score">{score:.3f}</span></span></li>'
    )


def _button(
    tile: Tile,
    box: tuple[float, float, float, float] | None,
    words: str,
    kind: str,
) -> str:
    """A photo that opens large, with its token maps."""
    shares = "" if box is None else " ".join(f"{share:.4f}" for share in box)
    alt = escaped(f"{tile.name}: {words}")
    frame = "" if box is None else _frame(box)
    image = (
        f'<img data-photo="{tile.photo}" alt="{alt}" width="{tile.width}" '
        f'height="{tile.height}" decoding="async">'
    )
    inside = f'<span class="boxed">{image}{frame}</span>' if frame else image
    return (
        f'<button type="button" class="photo {kind}" data-photo="{tile.photo}" '
        f'data-box="{shares}" data-name="{escaped(tile.name)}" '
        f'data-words="{escaped(words)}">{inside}</button>'
    )


def _frame(box: tuple[float, float, float, float]) -> str:
    x0, y0, x1, y1 = (100 * share for share in box)
    place = f'x="{x0:.2f}" y="{y0:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"'
    return (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"<rect {place}/><rect {place}/></svg>"
    )


def _where(query: int, answers: Answers) -> str:
    """The strip of positives, and the same in words."""
    positives = answers.positives[query]
    ranks = answers.protocols[answers.main].ranks[query]
    drawn = strip(positives, answers.places[query])
    miss = first_miss(ranks)
    all_right = miss >= answers.places[query]
    said = "No miss" if all_right else f"First miss at rank {miss + 1:,}"
    told = "; ".join(_told(kind, each) for kind, each in positives.items() if len(each))
    return f"{drawn}<p>{said}. Positives: {told}.</p>"


def _told(kind: str, ranks: Ranks) -> str:
    first = ", ".join(f"{rank + 1:,}" for rank in ranks[:NAMED].tolist())
    rest = len(ranks) - NAMED
    name = f"{escaped(kind)} at " if kind else "at "
    if rest <= 0:
        return name + first
    return f"{name}{first} and {rest:,} more, the last at {int(ranks[-1]) + 1:,}"
