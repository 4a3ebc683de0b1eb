"""A service of an index: queries over HTTP beside the same work in this process.

Its indexes are of random descriptors (`synthetic_index`), its photos noise.
"""

import dataclasses
import functools
import itertools
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokret.arguments import within
from tokret.benchmark.noise_photos import noise_photo, numbered
from tokret.benchmark.service_process import Client, ServiceProcess, served
from tokret.benchmark.synthetic_index import SIDE, make_extractor, write_index
from tokret.benchmark.timing import (
    check_turns,
    environment,
    format_spread,
    ratios,
    spread,
    time_in_turns,
)
from tokret.data.views import View
from tokret.errors import UserError
from tokret.search.extractor import Extractor
from tokret.search.index_changes import add_files
from tokret.search.searcher import Searcher

TOP = 24  # results of a query, as of the page
BURST = 64  # queries of all clients together in a turn
FEW = 4  # photos of a turn that are searched with one by one
PROCESSES = 3  # runs of `tokret query`
ADDED = 1000  # photos
COMPILES = 600.0  # seconds that programs for batches take at the most
HTTP, HERE, PROCESS = "over HTTP", "in one process", "tokret query"
Precisions = ("float32", "int8")


class Sizes(NamedTuple):
    """How large the indexes are."""

    photos: int  # that queries search
    many: int  # of the index whose start, memory and growth are measured; 0: none
    dims: int


def run(sizes: Sizes, clients: int, turns: int, scratch: Path | None) -> dict[str, Any]:
    """Times a service; its indexes are in `scratch` until the end.

    Raises:
      UserError: for arguments out of range, or too little free space.
    """
    check_turns(turns)
    within("photos", sizes.photos, TOP)
    within("clients", clients, 1, 64)
    within("dim", sizes.dims, 1)
    if sizes.many:
        within("many", sizes.many, ADDED)
    if scratch is not None and not scratch.is_dir():
        raise UserError(f"scratch: {scratch} is not a folder")
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        size = 4 * sizes.dims * (sizes.photos + sizes.many)
        free = shutil.disk_usage(folder).free
        if free < 1.2 * size:
            raise UserError(
                f"scratch: {size / 1e9:.1f} GB of descriptors need more than the "
                f"{free / 1e9:.1f} GB that are free in {folder}; name another folder"
            )
        return _measure(folder, sizes, clients, turns)


def _measure(folder: Path, sizes: Sizes, clients: int, turns: int) -> dict[str, Any]:
    (root := folder / "photos").mkdir()
    extractor = make_extractor(folder / "model", sizes.dims)
    make = functools.partial(write_index, root=root, extractor=extractor)
    index = folder / "index"
    make(index, rows=sizes.photos, dims=sizes.dims)
    photos = _photos()
    result = {
        "benchmark": "serve",
        "environment": environment("numpy", "jax", "starlette", "uvicorn"),
        "photos": sizes.photos,
        "dims": sizes.dims,
        "clients": clients,
        "turns": turns,
    }
    alone = _query_processes(index, next(photos))
    with served(index) as service:
        _warm_up(service, photos)
        searcher = Searcher(index, lambda copy: extractor)
        result["one"] = _one_by_one(service, searcher, alone, photos, turns)
        result["at_once"] = _at_once(service, photos, clients, turns)
        del searcher
    if sizes.many:
        shutil.rmtree(index)
        large = folder / "many"
        make(large, rows=sizes.many, dims=sizes.dims)
        result["many"] = sizes.many
        result["served"] = {kind: _held(large, kind, photos) for kind in Precisions}
        small = folder / "few"
        make(small, rows=ADDED, dims=sizes.dims)
        both = {"few": small, "many": large}
        result["adding"] = _adding(both, root, extractor, sizes.dims)
    return result


def _photos() -> Iterator[bytes]:
    """Different photos without end."""
    first = noise_photo(0)
    return (numbered(first, number) for number in itertools.count())


def _take(photos: Iterator[bytes], count: int) -> list[bytes]:
    return [next(photos) for _ in range(count)]


def _answered(client: Client, photo: bytes) -> bool:
    """Whether a query is answered with as many results as it wants."""
    status, answer = client.search(photo, top=str(TOP))
    return status == 200 and len(answer["results"]) == TOP


def _warm_up(service: ServiceProcess, photos: Iterator[bytes]) -> None:
    """Queries until programs for batches are compiled, which comes after the start."""
    client = Client(service.url)
    for photo in _take(photos, FEW):
        assert _answered(client, photo), "a query was not answered"
    client.close()
    last, before = time.monotonic() + COMPILES, -math.inf
    while (used := service.processor_seconds()) - before > 0.1:
        if time.monotonic() > last:
            raise UserError("the service did not come to rest")
        before = used
        time.sleep(2.0)


def _one_by_one(
    service: ServiceProcess,
    searcher: Searcher,
    alone: Sequence[float],
    photos: Iterator[bytes],
    turns: int,
) -> dict[str, Any]:
    """A query over HTTP, in this process, and by `tokret query`, which took `alone`."""
    searcher.warm_up()
    client = Client(service.url)

    def here(photo: bytes) -> None:
        (hits,) = searcher.search(searcher.embed([View(photo, "q", None, SIDE)]), TOP)
        assert len(hits) == TOP

    def there(photo: bytes) -> None:
        assert _answered(client, photo), "a query was not answered"

    cases: dict[str, Callable[[bytes], object]] = {HTTP: there, HERE: here}
    times = time_in_turns(cases, lambda: _take(photos, FEW), turns)
    client.close()
    each = {name: [s / FEW for s in taken] for name, taken in times.items()}
    return {
        "seconds": {name: spread(s) for name, s in each.items()}
        | {PROCESS: spread(alone)},
        "ratio": spread(ratios(times[HTTP], times[HERE])),
        "faster_than_a_process": min(alone) / spread(each[HTTP]).median,
    }


def _query_processes(index: Path, photo: bytes) -> list[float]:
    """Seconds of `tokret query`, which has compiled its programs before."""
    file = index.parent / "query.jpg"
    file.write_bytes(photo)
    command = [sys.executable, "-m", "tokret", "query", str(file), f"--index={index}"]
    taken = []
    for _ in range(PROCESSES + 1):
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - start)
    return taken[1:]


def _at_once(
    service: ServiceProcess, photos: Iterator[bytes], clients: int, turns: int
) -> dict[str, Any]:
    """Queries of several clients at once, in turns with one client alone."""
    rates: dict[str, list[float]] = {"one": [], "all": []}
    waits: dict[str, list[float]] = {"one": [], "all": []}
    lost = 0
    for turn in range(turns + 1):
        for name, count in (("one", 1), ("all", clients)):
            seconds, some, missed = _burst(service, _take(photos, BURST), count)
            if turn:  # the first warms up
                rates[name].append(BURST / seconds)
                waits[name] += some
                lost += missed
    return {
        "queries": BURST * turns,
        "per_second": {name: spread(found) for name, found in rates.items()},
        "ratio": spread(ratios(rates["all"], rates["one"])),
        "p50": {name: float(np.quantile(s, 0.5)) for name, s in waits.items()},
        "p99": {name: float(np.quantile(s, 0.99)) for name, s in waits.items()},
        "lost": lost,
    }


def _burst(
    service: ServiceProcess, photos: Sequence[bytes], clients: int
) -> tuple[float, list[float], int]:
    """Seconds of all queries, of each of them, and how many were not answered."""
    waiting, lost, waits = iter(photos), [], []

    def query() -> None:
        client = Client(service.url)
        for photo in waiting:  # an iterator of a list may be shared by threads
            start = time.perf_counter()
            answered = _answered(client, photo)
            waits.append(time.perf_counter() - start)
            if not answered:
                lost.append(photo)
        client.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(query) for _ in range(clients)]:
            future.result()
    return time.perf_counter() - start, waits, len(lost)


def _held(index: Path, precision: str, photos: Iterator[bytes]) -> dict[str, Any]:
    """The start and the memory of a service."""
    with served(index, f"--precision={precision}") as service:
        client = Client(service.url)
        for photo in _take(photos, FEW):
            assert _answered(client, photo), "a query was not answered"
        start = time.perf_counter()
        for photo in _take(photos, FEW):
            assert _answered(client, photo), "a query was not answered"
        seconds = (time.perf_counter() - start) / FEW
        used = service.resources()
        client.close()
        return {
            "start_seconds": service.start_seconds,
            "query_seconds": seconds,
            "proportional_bytes": used.proportional_bytes,
            "anonymous_bytes": used.anonymous_bytes,
        }


def _adding(
    indexes: Mapping[str, Path], root: Path, extractor: Extractor, dims: int
) -> dict[str, Any]:
    """Seconds of adding photos to indexes, with the model's work and without."""
    embed = functools.partial(_no_model, dims)
    unmodelled = dataclasses.replace(
        extractor, system=dataclasses.replace(extractor.system, embed=embed)
    )
    taken: dict[str, dict[str, float]] = {}
    numbers = itertools.count()
    for kind, used in (("extraction", extractor), ("no extraction", unmodelled)):
        taken[kind] = {}
        for name, index in indexes.items():
            (folder := root / f"{kind} {name}").mkdir()
            paths = []
            for number in itertools.islice(numbers, ADDED):
                paths.append(folder / f"{number}.jpg")
                paths[-1].write_bytes(noise_photo(number, SIDE, SIDE))
            start = time.perf_counter()
            add_files(index, paths, functools.partial(_same, used))
            taken[kind][name] = time.perf_counter() - start
    return taken


def _same(extractor: Extractor, copy: Path) -> Extractor:
    return extractor


def _no_model(dims: int, variables: Any, images: Any, *sizes: Any) -> Any:
    """In the place of a model: descriptors of random directions."""
    rows = np.random.default_rng().standard_normal((len(images), dims), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def report(result: Mapping[str, Any]) -> str:
    """Formats what `run` returns."""
    where, one, at_once = result["environment"], result["one"], result["at_once"]
    lines = [
        f"queries among {result['photos']:,} photos of {result['dims']} float32, "
        f"EfficientNet-Lite0 at {SIDE} px, exact, {result['turns']} turns",
        f"{where['cores']} cores, {where['processor']}",
        "",
        f"{'one query, ms':<32}{'time':>28}",
    ]
    for name, seconds in one["seconds"].items():
        lines.append(f"{name:<32}{format_spread(seconds, 0, 1000.0):>28}")
    lines += [
        f"{'over HTTP / in one process':<32}{format_spread(one['ratio']):>28}",
        f"{'tokret query / over HTTP':<32}{one['faster_than_a_process']:>28.1f}",
        "",
        f"{'clients':<10}{'queries/s':>28}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    for name, count in (("one", 1), ("all", result["clients"])):
        lines.append(
            f"{count:<10}{format_spread(at_once['per_second'][name], 1):>28}"
            f"{1000 * at_once['p50'][name]:>10.0f}{1000 * at_once['p99'][name]:>10.0f}"
        )
    lines.append(
        f"times as many at once: {format_spread(at_once['ratio'])}; lost: "
        f"{at_once['lost']} of {2 * at_once['queries']}"
    )
    if "many" in result:
        lines += ["", *_report_many(result)]
    return "\n".join(lines)


def _report_many(result: Mapping[str, Any]) -> Iterator[str]:
    many, added = result["many"], result["adding"]
    yield (
        f"{many:,} photos{'':<12}{'start s':>10}{'query ms':>10}{'PSS GB':>10}"
        f"{'anonymous GB':>14}"
    )
    for precision, found in result["served"].items():
        yield (
            f"{precision:<28}{found['start_seconds']:>10.1f}"
            f"{1000 * found['query_seconds']:>10.0f}"
            f"{found['proportional_bytes'] / 1e9:>10.2f}"
            f"{found['anonymous_bytes'] / 1e9:>14.2f}"
        )
    yield ""
    targets = f"{f'to {ADDED:,}':>14}{f'to {many:,}':>14}"
    yield f"{f'adding {ADDED:,} photos, s':<28}{targets}"
    for kind, taken in added.items():
        yield f"{kind:<28}{taken['few']:>14.1f}{taken['many']:>14.1f}"
