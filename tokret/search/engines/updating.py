"""Brings an engine up to date with an index: adds what it lacks, deletes the rest.

What the engine has is read from the engine, so that an update resumes after a kill of
any of the two, and repairs an engine that was restored from an older copy.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.runtime.progress import Progress
from tokret.search.engines.points import (
    Listing,
    Payload,
    PhotoFile,
    Points,
    point_id,
)
from tokret.search.engines.protocol import Engine
from tokret.shapes import Float, Shaped

BATCH = 1000  # points added or deleted by one call


class Part(NamedTuple):
    """The photos of a part of an index that have a descriptor."""

    digests: Sequence[str]
    files: Sequence[Sequence[PhotoFile]]  # of each digest, by path
    rows: Sequence[int]  # of each digest, its row among the descriptors
    descriptors: Callable[[], Float[np.ndarray, "n d"]]


@dataclasses.dataclass(frozen=True)
class Source:
    """An index, as the source of an engine's points."""

    parts: Callable[[], Iterable[Part]]  # may be called again
    model: str  # as `model_digest`
    token: str  # IDENTITY:CHANGES, another one whenever the index has changed
    identity: str  # of the index, the same for all its updates


class EngineChange(NamedTuple):
    """What an update did."""

    added: int
    deleted: int
    points: int  # of the writer now


def update_engine(engine: Engine, source: Source) -> EngineChange:
    """Brings an engine up to date; after a kill the same call resumes.

    Raises:
      UserError: the engine cannot be used, or has the photos of another index.
    """
    stats = engine.stats()
    if stats.token == source.token:
        return EngineChange(0, 0, stats.points)
    if stats.token.partition(":")[0] not in ("", source.identity):
        raise UserError(
            f"{engine.url}: has the photos of another index; name another collection, "
            "or delete this one"
        )
    if not stats.token:
        engine.claim(f"{source.identity}:")
    wanted, existing = _listing(engine, source), engine.listing()
    missing, extra = wanted.missing_from(existing), existing.without(wanted)
    with Progress(f"to {engine.url}", len(missing) + len(extra)) as bar:
        for points in _points(engine, source, missing):
            engine.add(points)
            bar.update(len(points))
        for start in range(0, len(extra), BATCH):
            some = extra[start : start + BATCH]
            engine.delete(some)
            bar.update(len(some))
    engine.build(source.token)
    return EngineChange(len(missing), len(extra), len(wanted.ids))


def _payloads(part: Part, source: Source) -> Iterator[Payload]:
    for digest, files in zip(part.digests, part.files, strict=True):
        yield Payload(digest, source.model, tuple(files))


def _listing(engine: Engine, source: Source) -> Listing:
    return Listing.of(
        (point_id(payload.digest, engine.writer), payload.fingerprint())
        for part in source.parts()
        for payload in _payloads(part, source)
    )


def _points(
    engine: Engine, source: Source, ids: Shaped[np.ndarray, " n"]
) -> Iterator[Points]:
    """The points of some ids, which ascend, in batches."""
    for part in source.parts() if len(ids) else ():
        own = np.array([point_id(d, engine.writer) for d in part.digests], np.uint64)
        chosen = np.flatnonzero(np.isin(own, ids, kind="sort"))
        if not len(chosen):
            continue
        payloads, descriptors = [*_payloads(part, source)], part.descriptors()
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            rows = descriptors[[part.rows[place] for place in some]]
            yield Points(own[some], rows, [payloads[place] for place in some])
