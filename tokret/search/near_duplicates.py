"""Results of searches without photos that are nearly the same as a better one."""

import contextlib
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.json_files import read_json
from tokret.search.duplicate_threshold import Threshold, learn_threshold
from tokret.search.filters import Filters
from tokret.search.searcher import Hit, Searcher
from tokret.shapes import Float

FILE = "duplicates.json"  # in the index: the threshold
MAX_BYTES = 10_000
MOST = 4000  # hits that are compared


def search_distinct(
    searcher: Searcher,
    query: Float[np.ndarray, " d"],
    top: int,
    filters: Filters,
    leave_out: Collection[str],
    similar: float,
) -> list[Hit]:
    """Searches for `top` photos that are not nearly the same as a better one.

    Args:
      searcher: of the index.
      query: a descriptor of length 1.
      top: how many to retrieve. If most are alike, fewer are found.
      filters: which photos to search.
      leave_out: ids of photos that are not to be found.
      similar: the cosine of two descriptors from which on they are nearly the same.
    """
    depth = 2 * top
    while True:
        (hits,) = searcher.search(query[None], depth, filters, leave_out)
        found = _group(searcher, hits, similar)
        if len(found) >= top or len(hits) < depth or depth >= MOST:
            return found[:top]
        depth = min(4 * depth, MOST)


def _group(searcher: Searcher, hits: Sequence[Hit], similar: float) -> list[Hit]:
    ids = list(dict.fromkeys(hit.id for hit in hits))
    rows = searcher.known_descriptors(ids)
    kept: list[Hit] = []
    hidden: list[int] = []
    dims = len(next(iter(rows.values()))) if rows else 0
    vectors = np.zeros((len(hits), dims), np.float32)
    for hit in hits:
        row = rows.get(hit.id)
        # Of a photo in another index there is no descriptor here to compare.
        if row is not None:
            scores = vectors[: len(kept)] @ row
            if len(kept) and scores.max() >= similar:
                hidden[int(scores.argmax())] += 1
                continue
            vectors[len(kept)] = row
        kept.append(hit)
        hidden.append(0)
    return [
        hit._replace(near_duplicates=count)
        for hit, count in zip(kept, hidden, strict=True)
    ]


def known_threshold(searcher: Searcher) -> Threshold:
    """The threshold that an index has, or one that is learned of its photos now.

    It is learned again when the model is another, or the number of photos has changed
    by a tenth. That takes some seconds for 100,000 photos.

    Raises:
      UserError: the index is damaged.
    """
    path = searcher.index / FILE
    with contextlib.suppress(UserError):
        known: Threshold = read_json(path, Threshold, "", MAX_BYTES)
        if known.suits(searcher.num_contents, searcher.model.weights):
            return known
    learned = learn_threshold(searcher.tiles(), searcher.model.weights)
    with contextlib.suppress(UserError):  # of an index that cannot be written
        write_whole(path, msgspec.json.encode(learned) + b"\n")
    return learned
