"""Queries and their results, without what computes them: a service may answer."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from tokret.arguments import within
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.search.filters import Filters
from tokret.search.hits import Hit


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The result of a query: as a sequence, its hits."""

    root: Path  # the folder that names are relative to
    hits: list[Hit]  # the best first
    gone: list[str]  # hits whose files are not below the root any more
    num_photos: int  # how many were searched
    extract_seconds: float  # for the query's descriptor, compilation included
    search_seconds: float  # for the search
    query: str = ""  # the path of its photo, or of the first
    error: str = ""  # why there are no hits, where others of several queries have some

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


class Query(NamedTuple):
    """What to search for: one photo, or several that make one query."""

    photos: tuple[Path, ...]  # to resemble
    unlike: tuple[Path, ...] = ()  # not to resemble
    box: Box | None = None  # part of the first, in pixels of the upright photo

    @property
    def name(self) -> str:
        """The path of the first photo."""
        return str(self.photos[0])


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """Which photos are searched, and which of them are results."""

    top: int = 20  # results of each query
    filters: Filters = Filters()
    leave_out_query: bool = False  # photos with the content of the query's
    hide_near_duplicates: bool = False  # of better results

    def __post_init__(self) -> None:
        """Checks the number of results."""
        within("top", self.top, 1)
