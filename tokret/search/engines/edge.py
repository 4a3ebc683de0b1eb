"""Qdrant Edge: the core of Qdrant's server in this process, in a folder of the index.

FOLDER/engine.json names the generation that searches use. An update works on a draft,
which becomes the next generation when it is complete: readers keep theirs, and a
process that is killed leaves a draft that the next update resumes.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io.atomic_files import sync_folder, write_whole
from tokret.io.json_files import read_json
from tokret.names import one_line
from tokret.search.engines.points import ALONE, Contents, Listing, Points
from tokret.search.engines.protocol import EVERYTHING, Candidate, Filter, Stats
from tokret.shapes import Float, Shaped

if TYPE_CHECKING:
    import qdrant_edge

EDGE = "qdrant-edge"  # its name, and that of its folder
RECORD, DRAFT, READY, LOCK = "engine.json", "draft", "ready.json", ".lock"
REMEDY = "remove the folder, and the next update of the index builds it again"

# Of 100,000 clustered descriptors of 1,024 dimensions: recall@100 of 0.996 in 0.18
# times NumPy's time, and with 512 candidates 0.997 in 0.24 (docs/search.md). The graph
# is searched with codes of 4 bits a dimension, and twice as many points as are wanted
# are scored again with float32.
EDGES, CONSTRUCTION_EF, SEARCH_EF, OVERSAMPLING = 16, 100, 384, 2.0
GRAPH_FROM = 10_000  # KB of descriptors in a segment
EXACT_BELOW = 10_000  # points, which are searched exactly in a few milliseconds
PAGE = 10_000  # points listed together


class Record(msgspec.Struct, frozen=True):
    """The content of `engine.json`."""

    contents: Contents
    generation: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    points: Annotated[int, msgspec.Meta(ge=0)]
    token: str  # of the last complete update


class EdgeEngine:
    """An engine in a folder, which one process at a time may update."""

    url, writer = EDGE, ALONE

    def __init__(self, folder: Path, contents: Contents) -> None:
        """Opens the engine; a folder that does not exist is one without points.

        Args:
          folder: of the engine.
          contents: of the engine. Another model's points are not searched, and the next
            update replaces them.
        """
        self._folder = folder
        self._contents = contents
        self._shard: qdrant_edge.EdgeShard | None = None
        self._is_draft = False
        self._record: Record | None = None
        while True:
            self._record = self._read()
            try:
                with self._errors():
                    if self._record:
                        self._shard = _load(folder / self._record.generation)
                break
            except UserError:
                if self._read() == self._record:  # an update has removed the old one
                    raise

    @property
    def generation(self) -> str:
        """The name of the folder that searches use; "" if there is none."""
        return self._record.generation if self._record else ""

    def claim(self, token: str) -> None:
        """As `Engine.claim`: a folder is its index's own."""

    def add(self, points: Points) -> None:
        """As `Engine.add`."""
        import qdrant_edge

        shard = self._draft()
        with self._errors():
            shard.update(
                qdrant_edge.UpdateOperation.upsert_points(
                    [
                        qdrant_edge.Point(
                            point,
                            descriptor.tolist(),
                            {
                                "folders": payload.folders(),
                                "labels": payload.labels(),
                                "fingerprint": payload.fingerprint(),
                            },
                        )
                        for point, descriptor, payload in zip(
                            points.ids.tolist(),
                            points.descriptors,
                            points.payloads,
                            strict=True,
                        )
                    ]
                )
            )
            shard.flush()

    def delete(self, ids: Shaped[np.ndarray, " n"]) -> None:
        """As `Engine.delete`."""
        import qdrant_edge

        shard = self._draft()
        with self._errors():
            shard.update(qdrant_edge.UpdateOperation.delete_points(ids.tolist()))
            shard.flush()

    def build(self, token: str) -> None:
        """As `Engine.build`: the draft becomes the generation that searches use."""
        shard = self._draft()
        with self._errors():
            shard.optimize()
            shard.flush()
            points = shard.info().points_count
            shard.close()
        self._shard, self._is_draft = None, False
        generation = secrets.token_hex(8)
        os.rename(self._folder / DRAFT, self._folder / generation)
        sync_folder(self._folder)
        self._record = Record(self._contents, generation, points, token)
        write_whole(self._folder / RECORD, msgspec.json.encode(self._record) + b"\n")
        for name in os.listdir(self._folder):
            if re.fullmatch("[0-9a-f]{16}", name) and name != generation:
                shutil.rmtree(self._folder / name, ignore_errors=True)
        with self._errors():
            self._shard = _load(self._folder / generation)

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        top: int,
        only: Filter = EVERYTHING,
    ) -> list[list[Candidate]]:
        """As `Engine.search`; candidates have no payloads."""
        import qdrant_edge as edge

        if self._shard is None:
            return [[] for _ in queries]
        rescoring = edge.QuantizationSearchParams(
            rescore=True, oversampling=OVERSAMPLING
        )
        params = edge.SearchParams(
            exact=self.stats().points < EXACT_BELOW,
            hnsw_ef=max(SEARCH_EF, 2 * top),
            quantization=rescoring,
        )
        conditions: list[Any] = [
            edge.FieldCondition(name, match=edge.MatchAny(list(values)))
            for name, values in only._asdict().items()
            if values
        ]
        found = []
        with self._errors():
            for query in queries:
                request = edge.SearchRequest(
                    query=edge.Query.Nearest(query.tolist()),
                    limit=top,
                    filter=edge.Filter(must=conditions) if conditions else None,
                    params=params,
                )
                points = self._shard.search(request)
                found.append(
                    [Candidate(_number(point.id), point.score) for point in points]
                )
        return found

    def stats(self) -> Stats:
        """As `Engine.stats`."""
        if self._shard is None or self._is_draft or self._record is None:
            points = self._shard.info().points_count if self._shard else 0
            return Stats(points, points, "")
        return Stats(self._record.points, self._record.points, self._record.token)

    def listing(self) -> Listing:
        """As `Engine.listing`; of a draft that an update has left, to be resumed."""
        import qdrant_edge as edge

        if (self._folder / DRAFT).exists():
            self._draft()
        pairs: list[tuple[int, int]] = []
        if self._shard is None:
            return Listing.of(pairs)
        offset: Any = None
        with self._errors():
            while True:
                page, offset = self._shard.scroll(
                    edge.ScrollRequest(
                        offset=offset,
                        limit=PAGE,
                        with_payload=["fingerprint"],
                        with_vector=False,
                    )
                )
                pairs += [
                    (_number(each.id), (each.payload or {})["fingerprint"])
                    for each in page
                ]
                if offset is None:
                    return Listing.of(pairs)

    def close(self) -> None:
        """As `Engine.close`; a draft stays, to be resumed."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _read(self) -> Record | None:
        path = self._folder / RECORD
        if not path.exists():
            return None
        record: Record = read_json(path, Record, REMEDY, 2**16)
        return record if record.contents == self._contents else None

    def _draft(self) -> "qdrant_edge.EdgeShard":
        """The draft: the one that is open, that of a killed update, or a new one."""
        if self._is_draft and self._shard is not None:
            return self._shard
        self.close()
        folder = self._folder / DRAFT
        with self._errors():
            self._shard = self._resumed(folder) or self._started(folder)
        self._is_draft = True
        return self._shard

    def _resumed(self, folder: Path) -> "qdrant_edge.EdgeShard | None":
        # Whatever a killed process left of it: it is a copy.
        with contextlib.suppress(Exception):
            ready = read_json(folder / READY, Contents, REMEDY, 2**16)
            if ready == self._contents:
                return _load(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def _started(self, folder: Path) -> "qdrant_edge.EdgeShard":
        if self._record:
            shutil.copytree(self._folder / self._record.generation, folder)
            (folder / READY).unlink(missing_ok=True)
            shard = _load(folder)
        else:
            folder.mkdir(parents=True)
            shard = _create(folder, self._contents.dimensions)
        write_whole(folder / READY, msgspec.json.encode(self._contents))
        return shard

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # qdrant_edge raises no other class
            why = one_line(error).removeprefix("Service runtime error: ")
            raise UserError(f"{self._folder}: {why}: {REMEDY}") from error


def _number(point: object) -> int:
    assert isinstance(point, int)  # as it was added
    return point


def _load(folder: Path) -> "qdrant_edge.EdgeShard":
    import qdrant_edge

    # Loading writes some of a shard's files, also for a process that only reads.
    with (folder.parent / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return qdrant_edge.EdgeShard.load(str(folder))


def _create(folder: Path, dimensions: int) -> "qdrant_edge.EdgeShard":
    import qdrant_edge as edge

    shard = edge.EdgeShard.create(
        str(folder),
        edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(dimensions, edge.Distance.Dot),
            hnsw_config=edge.HnswIndexConfig(EDGES, CONSTRUCTION_EF, GRAPH_FROM),
            quantization_config=edge.TurboQuantQuantizationConfig(
                bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
            ),
            optimizers=edge.EdgeOptimizersConfig(
                default_segment_number=1, indexing_threshold=GRAPH_FROM
            ),
            wal_enabled=False,  # a draft is flushed after each batch
        ),
    )
    for name in Filter._fields:
        shard.update(
            edge.UpdateOperation.create_field_index(
                name, edge.PayloadSchemaType.Keyword
            )
        )
    return shard
