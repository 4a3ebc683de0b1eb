"""Results of which none is nearly the same as a better one."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tokret.search.filters import Filters
from tokret.search.searcher import Hit, Searcher
from tokret.shapes import Float

SIMILAR = 0.95  # cosine of near-duplicates
MOST = 4000  # hits that are compared


class Distinct(NamedTuple):
    """A hit, and how many worse ones are nearly the same."""

    hit: Hit
    hidden: int = 0


def search_distinct(
    searcher: Searcher,
    query: Float[np.ndarray, " d"],
    top: int,
    filters: Filters,
    leave_out: Collection[str],
    similar: float = SIMILAR,
) -> list[Distinct]:
    """Searches for `top` photos that are not nearly the same.

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


def _group(searcher: Searcher, hits: Sequence[Hit], similar: float) -> list[Distinct]:
    ids = list(dict.fromkeys(hit.id for hit in hits))
    rows = dict(zip(ids, searcher.descriptors(ids), strict=True)) if ids else {}
    kept: list[Hit] = []
    hidden: list[int] = []
    vectors = np.zeros((len(ids), len(rows[ids[0]]) if ids else 0), np.float32)
    for hit in hits:
        scores = vectors[: len(kept)] @ rows[hit.id]
        if len(kept) and scores.max() >= similar:
            hidden[int(scores.argmax())] += 1
            continue
        vectors[len(kept)] = rows[hit.id]
        kept.append(hit)
        hidden.append(0)
    return [Distinct(*each) for each in zip(kept, hidden, strict=True)]
