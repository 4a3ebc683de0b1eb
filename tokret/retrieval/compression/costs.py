"""What a compressed database takes: bytes, time to build, time to search."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tokret.retrieval import search
from tokret.retrieval.blocks import Database
from tokret.retrieval.compression.database import Compressed, compress
from tokret.retrieval.compression.faiss_search import FaissSearch

ALONE = 50  # queries that are asked one by one
K = 100

Search = Callable[[np.ndarray], object]


def searcher(compressed: Compressed, k: int) -> tuple[str, Search]:
    """Who searches a compressed database fastest on a CPU, and how.

    Args:
      compressed: the database.
      k: how many images are looked for.

    Returns:
      "faiss" for product codes or "tokret", and a function of [Q, D] queries.
    """
    if compressed.quantiser is not None:
        index = FaissSearch(compressed)
        return "faiss", lambda queries: index.top_k(queries, k)
    codes = compressed.codes
    return "tokret", lambda queries: search.top_k(compressed.ask(queries), codes, k)


def costed(
    form: str, queries: np.ndarray, database: Database
) -> tuple[Compressed, dict[str, Any]]:
    """Compresses a database and searches it, with what that costs.

    Args:
      form: as of `Compressed`.
      queries: [Q, D] descriptors.
      database: [N, D].

    Returns:
      The database, and: `image_bytes` and `all_bytes`; `build_seconds`; `by` whom it is
      searched for the best 100; seconds of one query alone, `one` [median, 99th
      percentile], and of one among all, `at_once`.

    Raises:
      UserError: there is no such form, or it needs faiss and that is missing.
    """
    start = time.perf_counter()
    compressed = compress(database, form)
    built = time.perf_counter() - start
    by, find = searcher(compressed, min(K, len(database)))
    find(queries)  # compiles
    find(queries[:1])
    alone = []
    for i in range(ALONE):
        start = time.perf_counter()
        find(queries[i % len(queries)][None])
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    find(queries)
    together = (time.perf_counter() - start) / len(queries)
    return compressed, {
        "image_bytes": compressed.image_bytes,
        "all_bytes": compressed.all_bytes,
        "build_seconds": built,
        "by": by,
        "one": [statistics.median(alone), float(np.percentile(alone, 99))],
        "at_once": together,
    }
