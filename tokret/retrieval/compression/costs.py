"""The costs of a compressed database: bytes, time to build, time to search."""

import statistics
import time
from typing import Any

import numpy as np

from tokret.retrieval.compression.database import Compressed, compress
from tokret.retrieval.compression.faiss_search import FaissSearch
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.exact_search.top_k import top_k

ALONE = 50  # queries that are timed one by one
K = 100


def measure_compression(
    codec: str, queries: np.ndarray, database: Database
) -> tuple[Compressed, dict[str, Any]]:
    """Compresses a database, searches it for the best 100, and measures both.

    Product codes are searched by faiss, which is the fastest on a CPU.

    Returns:
      The database, and: `image_bytes` and `all_bytes`; `build_seconds`; `by`, the
      searching library; seconds of one query alone, `one` [median, 99th
      percentile], and of one among all, `at_once`.

    Raises:
      UserError: the codec is unknown, or it needs faiss and that is missing.
    """
    start = time.perf_counter()
    compressed = compress(database, codec)
    built = time.perf_counter() - start
    k = min(K, len(database))
    index = None if compressed.quantiser is None else FaissSearch(compressed)

    def search(queries: np.ndarray) -> object:
        if index is not None:
            return index.top_k(queries, k)
        return top_k(compressed.encode_queries(queries), compressed.codes, k)

    search(queries)  # compiles
    search(queries[:1])
    alone = []
    for i in range(ALONE):
        start = time.perf_counter()
        search(queries[i % len(queries)][None])
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    search(queries)
    together = (time.perf_counter() - start) / len(queries)
    return compressed, {
        "image_bytes": compressed.image_bytes,
        "all_bytes": compressed.all_bytes,
        "build_seconds": built,
        "by": "tokret" if index is None else "faiss",
        "one": [statistics.median(alone), float(np.percentile(alone, 99))],
        "at_once": together,
    }
