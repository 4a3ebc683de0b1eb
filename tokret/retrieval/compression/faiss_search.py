"""Product codes searched by faiss: the fastest way on a CPU.

faiss distributes a batch of queries over threads, but not a single query. So that one
query, too, uses all cores, the codes are split into as many pieces as threads.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.compression.product import import_faiss, split_into_parts
from tokret.retrieval.exact_search.top_k import merge_lists
from tokret.shapes import Float, Int, Shaped


class FaissSearch:
    """Product codes in faiss's own index; `threads` None takes as many as faiss has.

    Raises:
      UserError: faiss is missing.
    """

    def __init__(self, compressed: Compressed, threads: int | None = None) -> None:
        assert compressed.quantiser is not None
        faiss = import_faiss()
        pieces = threads or faiss.omp_get_max_threads()
        self._centroids = compressed.quantiser.centroids
        self._pieces: list[tuple[int, Any]] = []
        start = 0
        for codes in np.array_split(compressed.codes, pieces):
            if len(codes):
                self._pieces.append((start, self._index(faiss, codes)))
            start += len(codes)
        self._threads = ThreadPoolExecutor(len(self._pieces))

    def _index(self, faiss: Any, codes: Shaped[np.ndarray, "n m"]) -> Any:
        parts, _, width = self._centroids.shape
        index = faiss.IndexPQ(parts * width, parts, 8, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(self._centroids.reshape(-1), index.pq.centroids)
        faiss.copy_array_to_vector(np.ascontiguousarray(codes).reshape(-1), index.codes)
        index.is_trained, index.ntotal = True, len(codes)
        return index

    def top_k(
        self, queries: Shaped[np.ndarray, "q d"], k: int
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """The best k images, at most all, of each query [Q, D].

        Returns [Q, k] float32 scores, falling, and [Q, k] int64 indices; among equal
        scores at the end of a list the choice is arbitrary.
        """
        parts = len(self._centroids)
        cut = split_into_parts(np.asarray(queries, np.float32), parts)

        def search(piece: tuple[int, Any]) -> tuple[np.ndarray, np.ndarray]:
            start, index = piece
            scores, items = index.search(cut, min(k, index.ntotal))
            return scores, items + start

        found = list(self._threads.map(search, self._pieces))
        scores, items = (
            np.concatenate(part, axis=1) for part in zip(*found, strict=True)
        )
        return merge_lists(scores, items, k)
