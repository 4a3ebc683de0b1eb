"""What a report shows of a system on a benchmark: photos, rankings, costs."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np
from PIL import Image

from tokret.data.views import View
from tokret.evaluation.systems import Described
from tokret.retrieval import search
from tokret.retrieval.answers import Costs
from tokret.shapes import Array, Float, Int, Shaped

GREY = (128, 128, 128)


class ShownViews(Sequence[View]):
    """Views of which all can be decoded: a grey one stands for a bad photo."""

    def __init__(
        self,
        views: Sequence[View],
        bad: Mapping[int, str],
        rows: Sequence[int] | None = None,
    ) -> None:
        """Names the views.

        Args:
          views: all of a part.
          bad: by row, why a view cannot be decoded.
          rows: which views, in order; None for all.
        """
        self._views, self._bad = views, bad
        self._rows = range(len(views)) if rows is None else rows

    def __len__(self) -> int:
        """The number of views."""
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[View]: ...
    def __getitem__(self, row: int | slice) -> View | Sequence[View]:
        """Reads a view."""
        if isinstance(row, slice):
            return ShownViews(self._views, self._bad, self._rows[row])
        place = self._rows[row]
        return grey(self._bad[place]) if place in self._bad else self._views[place]

    def __iter__(self) -> Iterator[View]:
        """Reads one after the other."""
        return (self[row] for row in range(len(self)))


def grey(why: str) -> View:
    """A grey square for a photo that cannot be shown.

    Args:
      why: what is wrong with the photo, which names it.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), GREY).save(buffer, "PNG")
    return View(buffer.getvalue(), why, None, 32)


def best_among(
    asking: Shaped[Array | np.ndarray, "n d"],
    database: Shaped[Array | np.ndarray, "m d"],
    queries: Sequence[int],
    count: int,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Searches for some of the queries.

    Args:
      asking: descriptors of all queries.
      database: descriptors.
      queries: rows of `asking`.
      count: how many items of each.

    Returns:
      Scores, falling, and items.
    """
    return search.top_k(asking[np.array(queries)], database, count)


def costs_of(found: Mapping[str, Described], searching: float) -> Costs:
    """What describing and searching took.

    Args:
      found: by part, its descriptors.
      searching: seconds.
    """
    descriptors = found["database"].descriptors
    dims = descriptors.shape[1]
    return Costs(
        extraction_seconds=sum(part.seconds for part in found.values()),
        num_extracted=sum(part.fresh for part in found.values()),
        search_seconds=searching,
        dims=dims,
        item_bytes=dims * descriptors.itemsize,
    )
