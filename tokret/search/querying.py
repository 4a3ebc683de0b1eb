"""Queries to an index: the photos most similar to a photo, or to a part of it."""

import contextlib
import dataclasses
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np

from tokret.arguments import within
from tokret.data.decoding import MAX_PIXELS
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.search.extractor import Extractor
from tokret.search.photos import read_view
from tokret.search.searcher import Hit, Searcher


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The result of a query: as a sequence, its hits."""

    root: Path  # the folder that names are relative to
    hits: list[Hit]  # the best first
    gone: list[str]  # hits whose files are not below the root any more
    num_photos: int  # how many were searched
    extract_seconds: float  # for the query's descriptor, compilation included
    search_seconds: float  # for the search

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        """Gives the hits, the best first."""
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        """Returns a hit by its place, from 0, or some of them."""
        return self.hits[place]


def parse_box(text: str | None) -> Box | None:
    """Reads x0,y0,x1,y1 in pixels.

    Raises:
      UserError: if it is not a box.
    """
    if text is None:
        return None
    return check_box(text.split(","), text)


def check_box(sides: Any, shown: object) -> Box:
    """Checks that a value has four sides of a box; errors show another form of it.

    Raises:
      UserError: if it is not a box.
    """
    try:
        x0, y0, x1, y1 = (float(side) for side in sides)
    except (TypeError, ValueError) as error:
        raise UserError(f"box={shown} must be x0,y0,x1,y1 in pixels") from error
    if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
        raise UserError(f"box={shown} must have 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


def query_index(
    index: Path,
    photo: Path,
    box: Box | None,
    top: int,
    load: Callable[[str], Extractor],
    root: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> SearchResults:
    """Retrieves the photos of an index that are most similar to another one.

    Args:
      index: the index's folder.
      photo: the query; it may be one of the index's own.
      box: the part of it to search for, in pixels of the upright photo; None for all.
      top: how many to retrieve.
      load: restores the model, given the name of the index's own copy of it.
      root: the folder where the index's photos are now; None: where they were indexed.
      max_pixels: that the photo may have.

    Raises:
      UserError: if there is no index, it is damaged, or the photo cannot be read.
    """
    within("top", top, 1)
    searcher = Searcher(index, load, root=root, hold=False)
    _suggest_name(photo)
    view = read_view(photo, str(photo), box, searcher.model.longest_side, max_pixels)
    searcher.extractor  # noqa: B018 (restored before the time is taken)
    start = time.perf_counter()
    query = searcher.embed([view])
    extracted = time.perf_counter()
    (hits,) = searcher.search(query, top)
    seconds = extracted - start, time.perf_counter() - extracted
    gone = [hit.name for hit in hits if not os.path.exists(searcher.root / hit.name)]
    return SearchResults(searcher.root, hits, gone, searcher.num_photos, *seconds)


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
