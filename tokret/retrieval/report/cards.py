"""One query of the page: its photo, its first ten, and the ranks of its positives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokret.retrieval.answers import Answers, Verdict, first_miss
from tokret.retrieval.report.charts import strip_marks, strip_ticks

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tile:
    """A photo in the page.

    Attributes:
      photo: its index in the page's list of photos.
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
class Result:
    """A photo of a ranking.

    Attributes:
      tile: the photo.
      verdict: whether it is a positive, by the main protocol.
      score: its similarity to the query.
      rank: from 1; None for junk, which is not ranked.
    """

    tile: Tile
    verdict: Verdict
    score: float
    rank: int | None


@dataclass(frozen=True)
class Card:
    """A query to show.

    Attributes:
      number: its index in the benchmark.
      tile: its photo.
      box: x0, y0, x1, y1 as fractions of the photo's sides; None for the whole photo.
      top: the first of its ranking, best first.
      precision: average precision, by protocol.
      positives: by kind, their ranks from 1, rising.
      first_miss: the rank, from 1, of the first item that is no positive; None where
        there is none.
      ticks: of the strip, as `strip_ticks` gives them.
      marks: of the strip, as `strip_marks` gives them.
    """

    number: int
    tile: Tile
    box: Box | None
    top: Sequence[Result]
    precision: Mapping[str, float]
    positives: Mapping[str, list[int]]
    first_miss: int | None
    ticks: list[tuple[str, int]]
    marks: Mapping[str, list[int]]


def make_card(
    query: int,
    answers: Answers,
    tile: Tile,
    box: Box | None,
    top: Sequence[tuple[Tile, Verdict, float]],
) -> Card:
    """Gathers what the page shows of a query.

    Args:
      query: its index in the benchmark.
      answers: where it comes from.
      tile: its photo.
      box: as of `Card`.
      top: the first of its ranking, best first, junk among them.
    """
    ranks = np.cumsum([verdict != "junk" for _, verdict, _ in top]).tolist()
    items, positives = answers.num_ranked[query], answers.positives[query]
    miss = first_miss(answers.protocols[answers.main].ranks[query])
    return Card(
        query,
        tile,
        box,
        [
            Result(*result, None if result[1] == "junk" else rank)
            for result, rank in zip(top, ranks, strict=True)
        ],
        {
            name: float(protocol.average_precision[query])
            for name, protocol in answers.protocols.items()
        },
        {kind: (each + 1).tolist() for kind, each in positives.items()},
        None if miss >= items else miss + 1,
        strip_ticks(items),
        strip_marks(positives, items),
    )
