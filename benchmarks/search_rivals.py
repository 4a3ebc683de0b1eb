"""Exact search by NumPy and faiss, beside tokret's."""

import numpy as np

from tokret.benchmark.search_speed import Search, exact_search
from tokret.errors import UserError
from tokret.retrieval.compression.product import import_faiss

FAISS, NUMPY = "faiss", "NumPy"


def searches(database: np.ndarray, k: int) -> dict[str, Search]:
    """Returns exact search for the best k, by each program that is installed.

    faiss searches the mapped database by `knn`, as its flat index does.

    Args:
      database: [N, D].
      k: how many of the best.
    """

    def by_numpy(queries: np.ndarray) -> object:
        scores = queries @ database.T
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-values, axis=1)
        return np.take_along_axis(best, order, axis=1)

    cases: dict[str, Search] = {**exact_search(database, k), NUMPY: by_numpy}
    try:
        faiss = import_faiss()
    except UserError:
        return cases
    inner = faiss.METRIC_INNER_PRODUCT
    cases[FAISS] = lambda queries: faiss.knn(queries, database, k, metric=inner)[1]
    return cases
