"""Engines of an index beside NumPy's exact search: time, recall, disk, building.

Each query is answered by NumPy and by each way of searching in turns, so that a busy
machine slows all of them alike; ratios are of medians.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tokret.search.engines.opening import EDGE, check_engine, open_engine
from tokret.search.engines.points import Contents, PhotoFile
from tokret.search.engines.protocol import EVERYTHING, Engine, Filter
from tokret.search.engines.updating import Part, Source, update_engine
from tokret.shapes import Float

MODEL = "benchmark"
TENTH = Filter(labels=("label 3",))  # a tenth of all
PART = 4096  # rows


def clustered(rows: int, dims: int) -> Float[np.ndarray, "n d"]:
    """Descriptors like those of photos: classes of very different sizes.

    Of one class, 50 rows on average, the mean cosine is 0.5; variances fall with the
    dimension, as principal components do.
    """
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(dims)) ** -0.5
    spectrum = (spectrum / np.sqrt((spectrum**2).mean())).astype(np.float32)
    classes = max(10, rows // 50)
    centres = rng.standard_normal((classes, dims), np.float32) * spectrum
    weights = 1 / (1 + np.arange(classes)) ** 0.7
    chosen = rng.choice(classes, rows, p=weights / weights.sum())
    found = np.empty((rows, dims), np.float32)
    for start in range(0, rows, PART):
        some = centres[chosen[start : start + PART]]
        noise = rng.standard_normal(some.shape, np.float32) * spectrum
        found[start : start + PART] = _unit(some + noise)
    return found


def uniform(rows: int, dims: int) -> Float[np.ndarray, "n d"]:
    """Directions drawn uniformly: no row is near another, unlike photos."""
    return _unit(np.random.default_rng(0).standard_normal((rows, dims), np.float32))


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


KINDS = {"clustered": clustered, "uniform": uniform}


def source(rows: Float[np.ndarray, "n d"]) -> Source:
    """The rows as an index of photos in a hundred folders."""

    def part(start: int) -> Part:
        numbers = range(start, min(start + PART, len(rows)))
        files = [
            [PhotoFile(f"folder {n % 100}/{n}.jpg", f"label {n % 10}", 10**6, 10**18)]
            for n in numbers
        ]
        some = rows[start : start + PART]
        digests = [f"{n:016x}" for n in numbers]
        return Part(digests, files, range(len(some)), lambda: some)

    starts = range(0, len(rows), PART)
    return Source(
        lambda: map(part, starts), MODEL, f"benchmark:{len(rows)}", "benchmark"
    )


def run(url: str, kind: str, rows: int, queries: int, top: int) -> dict[str, Any]:
    """Builds an engine of rows, and compares searches with NumPy's.

    Raises:
      UserError: the engine cannot be used.
    """
    check_engine(url, "engine")
    dims = 1024
    every = KINDS[kind](rows + queries, dims)
    database, wanted = every[:rows], every[rows:]
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        engine = open_engine(url, Path(folder), Contents(MODEL, dims))
        start = time.perf_counter()
        update_engine(engine, source(database))
        seconds = time.perf_counter() - start
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        found = compare(engine, database, wanted, top)
        engine.close()
    return {
        "benchmark": "engines",
        "engine": url.partition("://")[0],
        "descriptors": kind,
        "rows": rows,
        "dims": dims,
        "build_seconds": seconds,
        "bytes_per_row": size / rows if url == EDGE else None,
        **found,
    }


def compare(
    engine: Engine,
    database: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    top: int,
) -> dict[str, Any]:
    """Searches by NumPy and by an engine, all rows and a tenth of them, in turns."""
    times: dict[str, list[float]] = {"numpy": [], "all": [], "tenth": []}
    processor: dict[str, list[float]] = {name: [] for name in times}
    recalls: dict[str, list[float]] = {"all": [], "tenth": []}
    tenth = np.arange(3, len(database), 10)

    def timed(name: str, search: Callable[[], Any]) -> Any:
        start, used = time.perf_counter(), time.process_time()
        found = search()
        processor[name].append(time.process_time() - used)
        times[name].append(time.perf_counter() - start)
        return found

    for number, query in enumerate(queries):
        scores, best = timed("numpy", partial(_exact, database, query, top))
        few = tenth[np.argsort(-scores[tenth], kind="stable")[:top]]
        for name, only, truth in (("all", EVERYTHING, best), ("tenth", TENTH, few)):
            search = partial(engine.search, query[None], top, only)
            (found,) = timed(name, search)
            common = {each.point for each in found} & {*truth.tolist()}
            recalls[name].append(len(common) / top)
        if number < 3:  # of a first search caches are cold
            for seconds in (*times.values(), *processor.values()):
                seconds.clear()
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    used = {name: statistics.mean(seconds) for name, seconds in processor.items()}
    return {
        "numpy_ms": 1e3 * median["numpy"],
        **{
            f"{name}_{figure}": value
            for name in recalls
            for figure, value in (
                ("ratio", median[name] / median["numpy"]),
                # Of an engine in this process: unlike time, the same on a busy machine.
                ("processor_ratio", used[name] / used["numpy"]),
                ("recall", statistics.mean(recalls[name])),
                ("lowest_recall", min(recalls[name])),
            )
        },
    }


def _exact(database: np.ndarray, query: np.ndarray, top: int) -> tuple[Any, Any]:
    scores = database @ query
    best = np.argpartition(-scores, top)[:top]
    return scores, best[np.argsort(-scores[best], kind="stable")]


def report(result: dict[str, Any]) -> str:
    """One row of the table of docs/search.md."""
    size = result["bytes_per_row"]
    cells = [
        f"{result['engine']}, {result['rows']:,} {result['descriptors']}",
        f"{result['all_recall']:.3f}",
        f"{result['all_ratio']:.2f}",
        f"{result['all_processor_ratio']:.2f}" if size else "",
        f"{result['tenth_recall']:.3f}",
        f"{result['tenth_ratio']:.2f}",
        f"{result['tenth_processor_ratio']:.2f}" if size else "",
        f"{result['build_seconds']:.0f} s",
        f"{size:,.0f}" if size else "",
    ]
    return f"| {' | '.join(cells)} |"
