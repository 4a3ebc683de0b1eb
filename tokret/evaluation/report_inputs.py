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


def shown_views(views: Sequence[View], bad: Mapping[int, str]) -> LazyViews:
    """Views that can all be decoded: a grey square replaces a bad photo.

    `bad` has by row what is wrong with a photo.
    """
    square = io.BytesIO()
    Image.new("RGB", (32, 32), GREY).save(square, "PNG")

    def read(row: int) -> View:
        why = bad.get(row)
        return views[row] if why is None else View(square.getvalue(), why, None, 32)

    return LazyViews(len(views), read)


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
