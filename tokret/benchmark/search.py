"""Exact search among a million descriptors, beside faiss and NumPy; and compressed.

The descriptors lie in one file that all three map into memory, so that none has to hold
a copy: faiss searches it by `knn`, which is what its flat index does.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokret.benchmark.invented_descriptors import (
    LABELLED,
    make_queries,
    make_truth,
    write_descriptors,
)
from tokret.benchmark.turns import Times, environment, ratios, spread, take_turns
from tokret.data.ground_truth import GroundTruth
from tokret.errors import UserError
from tokret.retrieval import metrics, search
from tokret.retrieval.compression.costs import K, costed
from tokret.retrieval.compression.faiss_library import import_faiss

OURS, FAISS, NUMPY = "tokret", "faiss", "NumPy"
ROOM = 1.0  # GB beside the database
# The released system's product codes of 128 bytes an image among R1M's 1,006,322.
PUBLISHED_BYTES, PUBLISHED_LATENCY = 0.13e9, 0.1042
PQ8 = "pq128"

Search = Callable[[np.ndarray], object]


def rivals(database: np.ndarray, k: int) -> dict[str, Search]:
    """Exact search of [Q, D] queries, by each that is installed."""

    def by_numpy(queries: np.ndarray) -> object:
        scores = queries @ database.T
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-values, axis=1)
        return np.take_along_axis(best, order, axis=1)

    cases: dict[str, Search] = {
        OURS: lambda queries: search.top_k(queries, database, k)[1],
        NUMPY: by_numpy,
    }
    try:
        faiss = import_faiss()
    except UserError:
        return cases
    inner = faiss.METRIC_INNER_PRODUCT
    cases[FAISS] = lambda queries: faiss.knn(queries, database, k, metric=inner)[1]
    return cases


def measure_exact(
    queries: np.ndarray, database: np.ndarray, k: int, turns: int
) -> dict[str, Times]:
    """Times all queries together, and one alone: case -> seconds of each turn."""
    cases = rivals(database, k)
    return {
        f"{len(queries)} at once": take_turns(cases, lambda: [queries], turns),
        "one": take_turns(cases, lambda: [queries[:1]], turns),
    }


def peak_gigabytes() -> float:
    """The most memory that this process ever had, mapped files among it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def run(
    distractors: int,
    dims: int,
    queries: int,
    turns: int,
    scratch: Path | None,
    forms: Sequence[str],
) -> dict[str, Any]:
    """Times search.

    Args:
      distractors: how many, behind 6,322 labelled images.
      dims: D.
      queries: Q.
      turns: how often every exact case is timed.
      scratch: where the file of descriptors is until the end; None takes the system's
        own place.
      forms: of compression.

    Returns:
      What was measured, of what and where, as JSON takes it.

    Raises:
      UserError: the disk has no room.
    """
    size = (LABELLED + distractors) * dims * 4
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * size:
            raise UserError(
                f"{folder}: {size / 1e9:.1f} GB of descriptors need more room than the "
                f"{free / 1e9:.1f} GB that are free; name another place with --scratch"
            )
        path = Path(folder) / "descriptors.npy"
        asked = make_queries(queries, dims)
        write_descriptors(path, asked, distractors)
        database = np.asarray(np.load(path, mmap_mode="r"))
        return _measure(asked, database, turns, forms)


def _measure(
    queries: np.ndarray, database: np.ndarray, turns: int, forms: Sequence[str]
) -> dict[str, Any]:
    truth, k = make_truth(len(queries)), min(K, len(database))

    def evaluate(queries: np.ndarray) -> float:
        return metrics.evaluate(queries, database, truth).levels["medium"]["mAP"]

    value = evaluate(queries)
    ranked = take_turns({OURS: evaluate}, lambda: [queries], turns)[OURS]
    search.top_k(queries, database, k)
    peak = peak_gigabytes()  # before anyone else took any
    exact = measure_exact(queries, database, k, turns)
    missing = [] if FAISS in exact["one"] else [FAISS]
    packed = {
        form: _compressed(form, queries, database, truth)
        for form in forms
        if not (form.startswith("pq") and missing)
    }
    packages = ["numpy", "jax"] + ([] if missing else ["faiss-cpu"])
    rows, dims = database.shape
    result = {
        "benchmark": "search",
        "environment": environment(*packages),
        "database": {"rows": rows, "dims": dims, "gigabytes": database.nbytes / 1e9},
        **{"queries": len(queries), "k": k, "turns": turns, "missing": missing},
        "exact": {
            name: summary(times, len(queries) if name != "one" else 1)
            for name, times in exact.items()
        },
        "evaluation": {"seconds": spread(ranked), "mAP": value},
        "peak_gigabytes": peak,
        "compressed": packed,
    }
    return result | {"targets": targets(result)}


def _compressed(
    form: str, queries: np.ndarray, database: np.ndarray, truth: GroundTruth
) -> dict[str, Any]:
    compressed, costs = costed(form, queries, database)
    found = metrics.evaluate(compressed.ask(queries), compressed.codes, truth)
    return costs | {"mAP": found.levels["medium"]["mAP"]}


def summary(times: Times, queries: int) -> dict[str, Any]:
    """Seconds a query of each case, and how many times as long as tokret rivals take.

    Figures are [median, lowest, highest].
    """
    rest = {name: values for name, values in times.items() if name != OURS}
    return {
        "seconds": {
            name: spread([value / queries for value in values])
            for name, values in times.items()
        },
        "ratios": {
            name: spread(ratios(values, times[OURS])) for name, values in rest.items()
        },
    }


def targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and what was."""
    found = []
    for name, numbers in result["exact"].items():
        for rival, ratio in numbers["ratios"].items():
            words = f"{name}: as fast as {rival}, which takes times as long"
            found.append(_target(words, 1.0, ratio[0], ratio[0] >= 1))
    limit, peak = result["database"]["gigabytes"] + ROOM, result["peak_gigabytes"]
    found.append(_target("peak memory below, GB", limit, peak, peak < limit))
    if PQ8 in result["compressed"]:
        row = result["compressed"][PQ8]
        size, latency = row["all_bytes"] / 1e9, row["one"][0]
        words = f"{PQ8}: memory at most, GB"
        limit = PUBLISHED_BYTES / 1e9
        found.append(_target(words, limit, size, size <= limit))
        words = f"{PQ8}: one query faster than published, s"
        limit = PUBLISHED_LATENCY
        found.append(_target(words, limit, latency, latency < limit))
    return found


def _target(words: str, target: float, reached: float, met: bool) -> dict[str, Any]:
    return {"words": words, "target": target, "reached": reached, "met": met}
