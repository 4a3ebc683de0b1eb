"""Copies an index to its engine, and compares the engine's answers with exact ones."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.io.remote.fetching import fetch
from tokret.search.catalogue import FILE, Catalogue, open_catalogue
from tokret.search.catalogue_rows import Part as IndexPart
from tokret.search.catalogue_rows import to_text
from tokret.search.catalogue_writing import writing
from tokret.search.engines.opening import open_engine
from tokret.search.engines.points import Contents, PhotoFile, model_digest
from tokret.search.engines.protocol import Engine
from tokret.search.engines.recording import (
    EngineRecord,
    next_record,
    recorded_engine,
)
from tokret.search.engines.searching import MARGIN, open_search
from tokret.search.engines.updating import EngineChange, Part, Source, update_engine
from tokret.search.filters import Filters
from tokret.search.held_index import IndexSource
from tokret.search.held_parts import read_index
from tokret.search.index_folder import locked
from tokret.search.part_stores import open_part

QUERIES = 100  # photos of the index that measure an engine
TOP = 100


class Recall(NamedTuple):
    """How an engine's answers compare with exact ones."""

    top: int  # how many of the best rows are compared
    queries: int
    recall: float  # the mean fraction of them that the engine retrieves
    ratio: float  # of the time of a query to that of the exact search


def copy_index(index: Path, to: str, shard: str) -> tuple[str, EngineChange] | None:
    """Brings an index's engine up to date, and records which one it is.

    Args:
      index: the index's folder.
      to: the engine's URL; "" for the one that is recorded; exact to have none.
      shard: "K/N" where several indexes fill a collection; "" for what is recorded.

    Returns:
      The engine's URL and what was done; None if the index has no engine.

    Raises:
      UserError: the index is damaged or being updated, or the engine cannot be used.
    """
    with locked(index):
        record = _recorded(index, to, shard)
        if record is None:
            return None
        with open_catalogue(index) as catalogue:
            engine = _open(index, catalogue, record)
            try:
                source = index_source(index, catalogue, record)
                return record.url, update_engine(engine, source)
            finally:
                engine.close()


def planned_record(index: Path, to: str, shard: str) -> EngineRecord | None:
    """What `copy_index` will record; checked before anything is computed.

    Arguments and errors are those of `copy_index`.
    """
    with contextlib.ExitStack() as opened:
        record = None
        if fetch(index / FILE).exists():
            record = recorded_engine(opened.enter_context(open_catalogue(index)))
        return next_record(record, to, shard)


def _recorded(index: Path, to: str, shard: str) -> EngineRecord | None:
    with open_catalogue(index) as catalogue:
        before = recorded_engine(catalogue)
        record = next_record(before, to, shard)
        root, model = catalogue.root, catalogue.model
    if record == before:
        return record
    if record is not None:
        with open_catalogue(index) as catalogue:
            _open(index, catalogue, record).close()  # refused before it is recorded
    with writing(index, root, catalogue.path.name, model) as writer:
        if record is None:
            writer.set_engines({})
        else:
            values = {"identity": record.identity, "shard": record.shard}
            writer.set_engines({record.url: values})
        writer.commit()
    return record


def _open(index: Path, catalogue: Catalogue, record: EngineRecord) -> Engine:
    dims = {
        open_part(index, catalogue.model, part).descriptors.shape[1]
        for part in catalogue.parts()[:1]
    }
    contents = Contents(model_digest(catalogue.model), *dims)
    return open_engine(record.url, index, contents, record.shard)


def index_source(index: Path, catalogue: Catalogue, record: EngineRecord) -> Source:
    """The photos of an index as the points of an engine."""

    def parts() -> Iterator[Part]:
        for part in catalogue.parts():
            yield _part(index, catalogue, part)

    return Source(
        parts,
        model_digest(catalogue.model),
        record.token(catalogue.changes),
        record.identity,
    )


def _part(index: Path, catalogue: Catalogue, part: IndexPart) -> Part:
    files: dict[int, list[PhotoFile]] = {}
    for entry in catalogue.photos_in(part.name):
        file = PhotoFile(entry.name, entry.label, *entry.stamp)
        files.setdefault(entry.row, []).append(file)
    rows = sorted(files)
    return Part(
        [to_text(int(part.digests[row])) for row in rows],
        [sorted(files[row], key=lambda file: file.path) for row in rows],
        rows,
        lambda: open_part(index, catalogue.model, part).descriptors,
    )


def measure_recall(index: Path, seed: int = 0) -> Recall | None:
    """Compares an engine with the exact search, by photos of the index.

    Returns:
      None where other indexes fill the collection too: the exact answer is not known
      then.

    Raises:
      UserError: the index or the engine cannot be used.
    """
    with open_catalogue(index) as catalogue:
        record = recorded_engine(catalogue)
    if record is None or record.shard:
        return None
    state = read_index(IndexSource(index, hold=False))
    search = open_search(state, record)
    used = np.flatnonzero(state.used).astype(np.int32)
    chosen = np.random.default_rng(seed).permutation(used)[:QUERIES]
    queries = state.database.take(np.sort(chosen))
    top = min(TOP, len(used))
    everything = state.chosen(Filters())
    _, best = state.search(queries, top, everything)
    found, seconds = [], []
    for query, items in zip(queries[:, None], best, strict=True):
        start = time.perf_counter()
        rows = search.choose(query, top + MARGIN, Filters()).rows
        state.search(query, top, rows)
        seconds.append(time.perf_counter() - start)
        found.append(rows[items].mean())
    exact_seconds = []
    for query in queries[:4, None]:
        start = time.perf_counter()
        state.search(query, top, everything)
        exact_seconds.append(time.perf_counter() - start)
    search.engine.close()
    ratio = statistics.median(seconds) / min(exact_seconds)
    return Recall(top, len(queries), float(np.mean(found)), ratio)
