"""A million random descriptors, as hard to search as real ones.

Queries are directions; their positives are around them, junk between, and a few
distractors in fifty come close, so that no ranking is perfect.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tokret.data.ground_truth import GroundTruth, from_revisited
from tokret.shapes import Float

LABELLED = 6322  # images of Revisited Paris, before the distractors
PER_QUERY = {"easy": 30, "hard": 30, "junk": 10}
# Noise beside a direction of length 1: the cosine is 1 / sqrt(1 + noise**2).
NOISE = {"easy": (0.5, 3.0), "hard": (3.0, 9.0), "junk": (2.0, 6.0)}
NEAR, NEAR_NOISE = 0.02, (4.0, 14.0)  # the fraction of distractors near some query
_BLOCK = 16384


def make_queries(count: int, dims: int) -> Float[np.ndarray, "q d"]:
    """Draws [Q, D] float32 directions."""
    return _unit(np.random.default_rng(0).standard_normal((count, dims), np.float32))


def make_truth(queries: int) -> GroundTruth:
    """Returns which of the first `LABELLED` rows belong to which query."""
    each = sum(PER_QUERY.values())
    limit = min(each, LABELLED // queries)
    counts = {key: max(1, count * limit // each) for key, count in PER_QUERY.items()}
    rows = itertools.count()
    gnd = [
        {key: list(itertools.islice(rows, count)) for key, count in counts.items()}
        for _ in range(queries)
    ]
    names = [f"image_{i}" for i in range(LABELLED)]
    qimlist = [f"query_{i}" for i in range(queries)]
    truth = {"imlist": names, "qimlist": qimlist, "gnd": gnd}
    return from_revisited(truth, "synthetic descriptors")


def write_descriptors(
    path: Path, queries: Float[np.ndarray, "q d"], distractors: int
) -> None:
    """Writes `LABELLED` + distractors rows as an .npy file, block by block."""
    shape = (LABELLED + distractors, queries.shape[1])
    head = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for rows in _blocks(queries, distractors, np.random.default_rng(1)):
            file.write(rows.tobytes())


def _blocks(
    queries: Float[np.ndarray, "q d"], distractors: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    dims = queries.shape[1]
    truth = make_truth(len(queries))
    labelled = _unit(rng.standard_normal((LABELLED, dims), np.float32))
    for key, (low, high) in NOISE.items():
        for query, items in enumerate(getattr(truth, key)):
            noise = rng.uniform(low, high, (len(items), 1)).astype(np.float32)
            labelled[items] = _unit(queries[query] + noise * labelled[items])
    yield labelled
    for start in range(0, distractors, _BLOCK):
        count = min(_BLOCK, distractors - start)
        rows = _unit(rng.standard_normal((count, dims), np.float32))
        close = np.flatnonzero(rng.random(count) < NEAR)
        noise = rng.uniform(*NEAR_NOISE, (len(close), 1)).astype(np.float32)
        towards = queries[rng.integers(0, len(queries), len(close))]
        rows[close] = _unit(towards + noise * rows[close])
        yield rows


def _unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
