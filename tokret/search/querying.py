"""Queries to an index: the photos most similar to a photo, or to a part of it."""

import contextlib
import difflib
import os
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.decoding import MAX_PIXELS
from tokret.errors import UserError
from tokret.names import first_names, printable
from tokret.runtime.progress import printed_if_slow
from tokret.search.engines.opening import EXACT
from tokret.search.filters import Filters
from tokret.search.near_duplicates import known_threshold, search_distinct
from tokret.search.photos import read_view
from tokret.search.queries import Query as Query
from tokret.search.queries import SearchOptions as SearchOptions
from tokret.search.queries import SearchResults as SearchResults
from tokret.search.queries import parse_box as parse_box
from tokret.search.query_combination import combine
from tokret.search.searcher import Hit, Searcher
from tokret.shapes import Float

AT_ONCE = 64  # queries that are searched for together
COMPILING = "note: compiling for a photo of this shape; later ones start at once"


def search_photos(
    searcher: Searcher,
    queries: Sequence[Query],
    options: SearchOptions = SearchOptions(),  # noqa: B008 (frozen)
    max_pixels: int = MAX_PIXELS,
) -> Iterator[SearchResults]:
    """Searches for photos, some queries at a time.

    Args:
      searcher: the index.
      queries: what to search for; their photos may be of the index.
      options: what is retrieved.
      max_pixels: that a photo may have.

    Yields:
      The results in the order of the queries. If there are several, one whose photo
      cannot be read has an error instead of hits.

    Raises:
      UserError: the photo of the only query cannot be read, or the index is damaged.
    """
    is_alone = searcher.engine == EXACT  # else there may be photos of other indexes
    if options.filters and is_alone and not searcher.has_photos(options.filters):
        raise UserError(_why_none(searcher, options.filters))
    searcher.extractor  # noqa: B018 (restored before the time is taken)
    for begin in range(0, len(queries), AT_ONCE):
        some, embedded = queries[begin : begin + AT_ONCE], []
        for query in some:
            try:
                embedded.append(_embed(searcher, query, max_pixels))
            except UserError as error:
                if len(queries) == 1:
                    raise
                embedded.append(_Embedded(np.empty(0), frozenset(), 0.0, str(error)))
        yield from _search(
            searcher, queries[begin : begin + AT_ONCE], embedded, options
        )


def _why_none(searcher: Searcher, filters: Filters) -> str:
    """Which filters no photo passes, and what there is instead."""
    for wanted, existing, has, kinds in (
        (filters.folders, searcher.folders(), "is in the folder", "folders"),
        (filters.labels, searcher.labels(), "has the label", "labels"),
    ):
        if wanted and not {*wanted} & {*existing, ""}:
            # A path from the current folder, not from the root, has more parts.
            inner = wanted[0].partition("/")[2] or wanted[0]
            close = [inner] if inner in existing else []
            close = close or difflib.get_close_matches(wanted[0], [*existing], 1)
            hint = f"did you mean {printable(close[0])}? Its" if close else "its"
            return (
                f"no photo of the index {has} {printable(wanted[0])}; {hint} {kinds}: "
                f"{first_names([*existing] or [''])}"
            )
    return "no photo of the index is in such a folder and has such a label"


class _Embedded(NamedTuple):
    descriptor: Float[np.ndarray, " d"]
    ids: frozenset[str]  # of the photos to resemble
    seconds: float
    error: str = ""


def _embed(searcher: Searcher, query: Query, max_pixels: int) -> _Embedded:
    side, views = searcher.model.longest_side, []
    for place, path in enumerate([*query.photos, *query.unlike]):
        _suggest_name(path)
        box = None if place else query.box
        views.append(read_view(path, str(path), box, side, max_pixels))
    start = time.perf_counter()
    with printed_if_slow(COMPILING):
        rows, count = searcher.embed(views), len(query.photos)
    # The descriptor of a single photo stays as it is, to the last bit.
    found = rows[0] if len(rows) == 1 else combine(rows[:count], rows[count:])
    seconds = time.perf_counter() - start
    return _Embedded(found, frozenset(view.digest for view in views[:count]), seconds)


def _search(
    searcher: Searcher,
    queries: Sequence[Query],
    embedded: Sequence[_Embedded],
    options: SearchOptions,
) -> Iterator[SearchResults]:
    start = time.perf_counter()
    found = iter(_hits(searcher, [e for e in embedded if not e.error], options))
    seconds = (time.perf_counter() - start) / len(queries)
    num_searched = searcher.num_searched(options.filters)
    for query, each in zip(queries, embedded, strict=True):
        hits = [] if each.error else next(found)
        gone = [h.name for h in hits if not os.path.exists(searcher.root / h.name)]
        yield SearchResults(
            searcher.root,
            hits,
            gone,
            num_searched,
            each.seconds,
            seconds,
            query.name,
            each.error,
        )


def _hits(
    searcher: Searcher, embedded: Sequence[_Embedded], options: SearchOptions
) -> list[list[Hit]]:
    """The hits of each query."""
    if not embedded:
        return []
    top, filters = options.top, options.filters
    nothing: frozenset[str] = frozenset()
    skipped = [each.ids if options.leave_out_query else nothing for each in embedded]
    rows = np.stack([each.descriptor for each in embedded])
    if options.hide_near_duplicates:
        similar = known_threshold(searcher).score
        return [
            search_distinct(searcher, row, top, filters, ids, similar)
            for row, ids in zip(rows, skipped, strict=True)
        ]
    # Skipped afterwards, so that all queries are one search.
    copies = max(map(searcher.num_copies, skipped))
    found = searcher.search(rows, top + copies, filters)
    return [
        [hit for hit in hits if hit.id not in ids][:top]
        for hits, ids in zip(found, skipped, strict=True)
    ]


def _suggest_name(photo: Path) -> None:
    """Raises a UserError for a missing photo where one is named alike beside it."""
    if os.path.lexists(photo):
        return

    def alike(name: str) -> str:  # spaces of every width are one
        return " ".join(unicodedata.normalize("NFC", name).split())

    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(photo.parent)):
            if alike(name) == alike(photo.name):
                raise UserError(
                    f"{photo}: missing; did you mean {photo.parent / name}? Its spaces "
                    "or accents are other characters: copy its name, or complete it "
                    "with the tab key"
                )
