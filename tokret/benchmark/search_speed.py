"""Exact search among a million descriptors, and search of compressed ones.

The descriptors are in one file that every program maps into memory, so that none needs
a copy of its own.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tokret.arguments import within
from tokret.benchmark.rivals import Rivals
from tokret.benchmark.synthetic_descriptors import (
    LABELLED,
    make_queries,
    make_truth,
    write_descriptors,
)
from tokret.benchmark.timing import (
    OURS,
    Times,
    check_turns,
    environment,
    format_spread,
    ratios,
    spread,
    time_calls,
    time_in_turns,
)
from tokret.data.ground_truth import GroundTruth
from tokret.errors import UserError
from tokret.retrieval import metrics
from tokret.retrieval.compression.costs import K, measure_compression
from tokret.retrieval.compression.database import check_codec
from tokret.retrieval.compression.product import import_faiss
from tokret.retrieval.exact_search.top_k import top_k


def run(
    distractors: int,
    dims: int,
    queries: int,
    turns: int,
    scratch: Path | None,
    forms: Sequence[str],
    rivals: Rivals,
) -> dict[str, Any]:
    """Times search in 6,322 labelled images and distractors of `dims` dimensions.

    Exact search is timed so many turns, beside rivals; forms are compressions. The file
    of descriptors is in `scratch`, or the system's temporary folder, until the end.

    Raises:
      UserError: for arguments out of range, an unknown form, or too little free space.
    """
    check_turns(turns)
    within("queries", queries, 1, LABELLED // 3)
    within("database", distractors, 1)
    within("dim", dims, 1)
    if scratch is not None and not scratch.is_dir():
        raise UserError(f"scratch: {scratch} is not a folder")
    forms = [check_codec(form, dims) for form in forms]
    size = (LABELLED + distractors) * dims * 4
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * size:
            raise UserError(
                f"scratch: {size / 1e9:.1f} GB of descriptors need more than the "
                f"{free / 1e9:.1f} GB that are free in {folder}; name another folder"
            )
        path = Path(folder) / "descriptors.npy"
        vectors = make_queries(queries, dims)
        write_descriptors(path, vectors, distractors)
        database = np.asarray(np.load(path, mmap_mode="r"))
        return measure(vectors, database, turns, forms, rivals)


def measure(
    queries: np.ndarray,
    database: np.ndarray,
    turns: int,
    forms: Sequence[str],
    rivals: Rivals,
) -> dict[str, Any]:
    """Times search of queries [Q, D] in a database [N, D]; see `run`."""
    truth, k = make_truth(len(queries)), min(K, len(database))

    value = _medium(queries, database, truth)
    ranking = {OURS: lambda: _medium(queries, database, truth)}
    ranked = time_calls(ranking, turns)[OURS]
    top_k(queries, database, k)
    # With mapped files, before another program allocates memory.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = most * (1 if sys.platform == "darwin" else 1024) / 1e9
    cases = {
        OURS: lambda queries: top_k(queries, database, k)[1],
        **rivals.searches(database, k),
    }
    exact = {}
    for name, given in ((f"{len(queries)} at once", queries), ("one", queries[:1])):
        times = time_in_turns(cases, partial(list, [given]), turns)
        exact[name] = summary(times, len(given))
    missing = []
    try:
        import_faiss()
    except UserError:
        missing.append("faiss")
    compressed = {
        form: _compressed(form, queries, database, truth)
        for form in forms
        if not (form.startswith("pq") and missing)
    }
    packages = ["numpy", "jax"] + ([] if missing else ["faiss-cpu"])
    rows, dims = database.shape
    return {
        "benchmark": "search",
        "environment": environment(*packages),
        "database": {"rows": rows, "dims": dims, "gigabytes": database.nbytes / 1e9},
        **{"queries": len(queries), "k": k, "turns": turns, "missing": missing},
        "exact": exact,
        "evaluation": {"seconds": spread(ranked), "mAP": value},
        "peak_gigabytes": peak,
        "compressed": compressed,
    }


def _compressed(
    form: str, queries: np.ndarray, database: np.ndarray, truth: GroundTruth
) -> dict[str, Any]:
    compressed, costs = measure_compression(form, queries, database)
    encoded = compressed.encode_queries(queries)
    return costs | {"mAP": _medium(encoded, compressed.codes, truth)}


def _medium(queries: Any, database: Any, truth: GroundTruth) -> float:
    return metrics.evaluate(queries, database, truth).means["medium"]["mAP"]


def summary(times: Times, queries: int) -> dict[str, Any]:
    """Seconds a query of each case, and how many times as long as tokret others take.

    Figures are [median, lowest, highest].
    """
    each = {name: [s / queries for s in taken] for name, taken in times.items()}
    compared = {name: spread(ratios(s, times[OURS])) for name, s in times.items()}
    del compared[OURS]
    seconds = {name: spread(taken) for name, taken in each.items()}
    return {"seconds": seconds, "ratios": compared}


def report(result: Mapping[str, Any]) -> str:
    """Formats what `run` returns."""
    database, where = result["database"], result["environment"]
    evaluation = result["evaluation"]
    lines = [
        f"{result['queries']} queries among {database['rows']} descriptors of "
        f"{database['dims']} float32 ({database['gigabytes']:.2f} GB), the best "
        f"{result['k']}, {result['turns']} turns",
        f"{where['cores']} cores, {where['processor']}",
        *(f"not installed, skipped: {name}" for name in result["missing"]),
        "",
        f"{'exact, ms a query':<22}{'':<10}{'time':>28}{'times as long':>28}",
    ]
    for name, numbers in result["exact"].items():
        for maker, seconds in numbers["seconds"].items():
            ratio = numbers["ratios"].get(maker)
            lines.append(
                f"{name:<22}{maker:<10}{format_spread(seconds, scale=1000.0):>28}"
                f"{format_spread(ratio) if ratio else '1':>28}"
            )
    lines += [
        "",
        f"mAP of all queries, by counted ranks: "
        f"{format_spread(evaluation['seconds'])} s, {100 * evaluation['mAP']:.2f} %; "
        f"peak memory {result['peak_gigabytes']:.2f} GB",
    ]
    if result["compressed"]:
        lines += [
            "",
            f"{'form':<8}{'by':<8}{'bytes':>7}{'MB':>9}{'build s':>9}{'one ms':>9}"
            f"{'p99 ms':>9}{'batch ms':>10}{'mAP %':>8}{'lost':>7}",
        ]
    for form, row in result["compressed"].items():
        lines.append(
            f"{form:<8}{row['by']:<8}{row['image_bytes']:>7}"
            f"{row['all_bytes'] / 1e6:>9.1f}{row['build_seconds']:>9.1f}"
            f"{1000 * row['one'][0]:>9.1f}{1000 * row['one'][1]:>9.1f}"
            f"{1000 * row['at_once']:>10.2f}{100 * row['mAP']:>8.2f}"
            f"{100 * (evaluation['mAP'] - row['mAP']):>7.2f}"
        )
    return "\n".join(lines)
