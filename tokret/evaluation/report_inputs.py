"""What a report shows of a system on a benchmark: photos, rankings, costs."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tokret.data.views import LazyViews, View
from tokret.evaluation.image_sets import DescriptorSet
from tokret.retrieval.answers import Costs
from tokret.retrieval.exact_search.top_k import top_k
from tokret.retrieval.reranking.ranking import Ranking
from tokret.shapes import Float, Int

GREY = (128, 128, 128)


class ShownViews(LazyViews):
    """Views that can all be decoded: a grey square replaces a bad photo."""

    def __init__(self, views: Sequence[View], bad: Mapping[int, str]) -> None:
        """Wraps views; `bad` has by row why one cannot be decoded."""
        self._views, self._bad = views, bad

    def __len__(self) -> int:
        """The number of views."""
        return len(self._views)

    def read(self, row: int) -> View:
        """Reads a view."""
        return grey(self._bad[row]) if row in self._bad else self._views[row]


def grey(why: str) -> View:
    """A grey square in place of a photo that cannot be shown.

    Args:
      why: what is wrong with the photo, which names it.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), GREY).save(buffer, "PNG")
    return View(buffer.getvalue(), why, None, 32)


def best_of(
    ranking: Ranking, queries: Sequence[int], count: int
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Returns the best items of some queries, with falling scores."""
    return top_k(ranking.queries[np.array(queries)], ranking.database, count)


def costs_of(found: Mapping[str, DescriptorSet], search_seconds: float) -> Costs:
    """The costs of extracting descriptors, by set, and of the search."""
    descriptors = found["database"].descriptors
    dims = descriptors.shape[1]
    return Costs(
        extraction_seconds=sum(each.seconds for each in found.values()),
        num_extracted=sum(each.num_extracted for each in found.values()),
        search_seconds=search_seconds,
        dims=dims,
        item_bytes=dims * descriptors.itemsize,
    )
