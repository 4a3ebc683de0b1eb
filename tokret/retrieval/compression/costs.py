"""The costs of a compressed database: bytes, time to build, time to search."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tokret.retrieval.compression.database import Compressed, compress
from tokret.retrieval.compression.faiss_search import FaissSearch
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.exact_search.top_k import top_k

ALONE = 50  # queries that are timed one by one
K = 100

Search = Callable[[np.ndarray], object]


def fastest_search(compressed: Compressed, k: int) -> tuple[str, Search]:
    """Returns the fastest search of a compressed database on a CPU.

    Args:
      compressed: the database.
      k: how many images are retrieved.

    Returns:
      "faiss" for product codes or "tokret", and a function of [Q, D] queries.
    """
    if compressed.quantiser is not None:
        index = FaissSearch(compressed)
        return "faiss", lambda queries: index.top_k(queries, k)
    codes = compressed.codes
    return "tokret", lambda queries: top_k(compressed.encode_queries(queries), codes, k)


def measure_compression(
    codec: str, queries: np.ndarray, database: Database
) -> tuple[Compressed, dict[str, Any]]:
    """Compresses a database, searches it for the best 100, and measures both.

    Args:
      codec: as of `Compressed`.
      queries: [Q, D] descriptors.
      database: [N, D].

    Returns:
      The database, and: `image_bytes` and `all_bytes`; `build_seconds`; `by`, the
      library that searches; seconds of one query alone, `one` [median, 99th
      percentile], and of one among all, `at_once`.

    Raises:
      UserError: the codec is unknown, or it needs faiss and that is missing.
    """
    start = time.perf_counter()
    compressed = compress(database, codec)
    built = time.perf_counter() - start
    by, find = fastest_search(compressed, min(K, len(database)))
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
