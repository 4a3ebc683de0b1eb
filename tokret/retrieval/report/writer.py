"""Answers -> report.html: a choice of queries, their photos and maps, within a size."""

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokret.data.views import View, thumbnail_size
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.remote.uploading import publish, withdraw
from tokret.retrieval.answers import Answers
from tokret.retrieval.pictures import (
    RESULTS,
    pick_queries,
    ranking_picture,
    ranking_rows,
)
from tokret.retrieval.report.page import Card, Summary, Thumbnail, render, views_of
from tokret.retrieval.report.thumbnails import box_fractions, thumbnail
from tokret.retrieval.report.token_maps import Maps, TokenMapper, overlay
from tokret.retrieval.report.token_picture import token_picture, token_rows
from tokret.runtime.progress import progress_bar
from tokret.shapes import Float

PICTURES = ("queries.png", "tokens.png")
MAX_BYTES = 48 * 2**20  # what a browser opens without a pause


@dataclass(frozen=True, kw_only=True)
class ReportLimits:
    """How much a report shows."""

    queries: int  # most queries
    side: int  # longest side of a photo, in pixels
    # of the file; fewer queries are shown where it would be larger
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise UserError(f"report_queries={self.queries} must be at least 1")
        if not 16 <= self.side <= 1024:
            raise UserError(f"report_side={self.side} must be 16 to 1024")


def write_report_and_pictures(
    folder: Path,
    answers: Answers,
    summary: Summary,
    token_maps: TokenMapper,
    limits: ReportLimits,
) -> None:
    """Writes report.html, queries.png and, for a head that has maps, tokens.png.

    They are uploaded, if the folder has a URL.

    Raises:
      UserError: if a photo cannot be decoded, or a file not be written.
    """
    page, queries, tokens = (folder / n for n in ("report.html", *PICTURES))
    write_report(page, answers, summary, token_maps, limits)
    ranking_picture(ranking_rows(answers), queries)
    rows = token_rows(answers, pick_queries(answers.precision, 3), token_maps)
    if rows:
        token_picture(rows, tokens)
        publish(tokens)
    else:
        # It is of an earlier evaluation of another head.
        tokens.unlink(missing_ok=True)
        withdraw(tokens)
    publish(queries)
    publish(page)


def choose_queries(precision: Float[np.ndarray, " q"], count: int) -> list[int]:
    """Chooses at most `count` queries, in rising order, if all with positives are more.

    A quarter are the worst, a quarter the best, the others evenly spaced between these.
    """
    order = np.argsort(precision, kind="stable")
    valid = order[~np.isnan(precision[order])]
    if len(valid) <= count:
        return sorted(valid.tolist())
    quarter = count // 4
    middle = valid[quarter : len(valid) - quarter]
    spaced = np.linspace(0, len(middle) - 1, count - 2 * quarter).round().astype(int)
    ends = [*valid[:quarter], *valid[len(valid) - quarter :]]
    return sorted(int(query) for query in [*ends, *middle[spaced]])


def selection_text(precision: Float[np.ndarray, " q"], shown: int) -> str:
    """A sentence on which of the queries are shown."""
    count = int(np.count_nonzero(~np.isnan(precision)))
    without = len(precision) - count
    skipped = f" {without:,} without positives are skipped." if without else ""
    if shown == count:
        return f"All {count:,} queries.{skipped}"
    return (
        f"{shown:,} of {count:,} queries: the {shown // 4:,} worst, the {shown // 4:,} "
        f"best, and {shown - 2 * (shown // 4):,} evenly spaced between these.{skipped}"
    )


def write_report(
    path: Path,
    answers: Answers,
    summary: Summary,
    token_maps: TokenMapper | None,
    limits: ReportLimits,
) -> None:
    """Writes the page, atomically; `token_maps` is None for a system without a model.

    Raises:
      UserError: if a photo cannot be decoded, or the file not be written.
    """
    picked = choose_queries(answers.precision, limits.queries)
    cards = [
        Card(query, view := answers.queries[query], box_fractions(view), top)
        for query, top in zip(picked, answers.first(picked, RESULTS), strict=True)
    ]
    photos = _photos(views_of(cards), limits.side, token_maps)
    while True:
        selection = selection_text(answers.precision, len(cards))
        page = render(answers, summary, cards, photos, selection).encode()
        if len(page) <= limits.max_bytes or len(cards) == 1:
            break
        # A little fewer than would fit on the average: photos differ.
        fewer = int(0.95 * len(cards) * limits.max_bytes / len(page))
        precision = answers.precision[[card.number for card in cards]]
        cards = [cards[i] for i in choose_queries(precision, max(1, fewer))]
    write_whole(path, page)


def _photos(
    views: Sequence[View], side: int, token_maps: TokenMapper | None
) -> dict[View, Thumbnail]:
    """Thumbnails and token maps of photos."""
    with ThreadPoolExecutor() as pool:
        encoded = pool.map(lambda view: thumbnail(view, side), views)
        options = {"total": len(views), "unit": "photo", "desc": "report"}
        thumbnails = list(progress_bar(encoded, **options))
    found = None if token_maps is None else token_maps(views)
    maps: Sequence[Sequence[Maps] | Maps] = found or [()] * len(views)
    photos = {}
    for view, photo, mine in zip(views, thumbnails, maps, strict=True):
        content = {
            "photo": _base64(photo),
            "maps": [_base64(overlay(each)) for each in mine],
            "fractions": [round(100 * float(each.mean())) for each in mine],
        }
        size = thumbnail_size(view.whole_size(), float(side))
        photos[view] = Thumbnail(*size, content)
    return photos


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
