"""Qdrant: a server or a cluster of them, by qdrant-client.

Not tested against a server: no registry of packages has one. The calls are tested in
the client's own local mode, which is another program: it proves that they are well
formed and what their filters mean, not speed, indexing or behaviour of a cluster.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.names import one_line
from tokret.search.engines.edge import (
    CONSTRUCTION_EF,
    EDGES,
    GRAPH_FROM,
    SEARCH_EF,
)
from tokret.search.engines.points import Contents, Listing, Points, read_payload
from tokret.search.engines.protocol import EVERYTHING, Candidate, Filter, Stats
from tokret.shapes import Float, Shaped

if TYPE_CHECKING:
    import qdrant_client

OVERSAMPLING = 4.0  # of int8 codes, which servers of all versions have
PAGE = 10_000  # points listed together
SECONDS = 60  # for an answer
MAX_PAYLOAD = 2**20  # bytes of a photo's files


class QdrantEngine:
    """A collection of a Qdrant server."""

    def __init__(
        self,
        url: str,
        contents: Contents,
        writer: str,
        client: "qdrant_client.QdrantClient | None" = None,
    ) -> None:
        """Connects; a collection that does not exist is made by the first update.

        Args:
          url: qdrant://host:port/collection, the port that of the REST interface.
          contents: of the collection.
          writer: whose points are added and deleted.
          client: to use; None makes one of the URL.

        Raises:
          UserError: the server cannot be reached, or the collection has other contents.
        """
        import qdrant_client

        self.writer, self.url, self._contents = writer, url, contents
        address, _, self._name = url.removeprefix("qdrant://").partition("/")
        with self._errors():
            self._client = client or qdrant_client.QdrantClient(
                url=f"http://{address}", timeout=SECONDS, check_compatibility=False
            )
            self._exists = self._client.collection_exists(self._name)
            if self._exists:
                self._check()

    def claim(self, token: str) -> None:
        """As `Engine.claim`."""
        self._create()
        self._record(token)

    def add(self, points: Points) -> None:
        """As `Engine.add`."""
        from qdrant_client import models

        self._create()
        with self._errors():
            self._client.upsert(
                self._name,
                models.Batch(
                    ids=points.ids.tolist(),
                    vectors=points.descriptors.tolist(),
                    payloads=[
                        {
                            "writer": self.writer,
                            "fingerprint": payload.fingerprint(),
                            "folders": payload.folders(),
                            "labels": payload.labels(),
                            "photo": payload.bounded(MAX_PAYLOAD),
                        }
                        for payload in points.payloads
                    ],
                ),
                wait=True,
            )

    def delete(self, ids: Shaped[np.ndarray, " n"]) -> None:
        """As `Engine.delete`."""
        if self._exists:
            with self._errors():
                self._client.delete(self._name, ids.tolist(), wait=True)

    def build(self, token: str) -> None:
        """As `Engine.build`."""
        from qdrant_client import models

        self._create()
        with self._errors():
            green = models.CollectionStatus.GREEN
            while self._client.get_collection(self._name).status != green:
                time.sleep(0.2)
        self._record(token)

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        top: int,
        only: Filter = EVERYTHING,
    ) -> list[list[Candidate]]:
        """As `Engine.search`."""
        from qdrant_client import models

        if not self._exists:
            return [[] for _ in queries]
        conditions: list[Any] = [
            models.FieldCondition(key=name, match=models.MatchAny(any=list(values)))
            for name, values in only._asdict().items()
            if values
        ]
        params = models.SearchParams(
            hnsw_ef=max(SEARCH_EF, 2 * top),
            quantization=models.QuantizationSearchParams(
                rescore=True, oversampling=OVERSAMPLING
            ),
        )
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                limit=top,
                filter=models.Filter(must=conditions) if conditions else None,
                params=params,
                with_payload=["photo"],
            )
            for query in queries
        ]
        with self._errors():
            answers = self._client.query_batch_points(self._name, requests)
        return [
            [
                Candidate(
                    int(point.id),
                    point.score,
                    read_payload((point.payload or {}).get("photo"), self.url),
                )
                for point in answer.points
            ]
            for answer in answers
        ]

    def stats(self) -> Stats:
        """As `Engine.stats`."""
        if not self._exists:
            return Stats(0, 0, "")
        with self._errors():
            metadata = self._client.get_collection(self._name).config.metadata or {}
            mine = self._client.count(self._name, count_filter=self._mine()).count
            total = self._client.count(self._name).count
        return Stats(mine, total, metadata.get(f"token {self.writer}", ""))

    def listing(self) -> Listing:
        """As `Engine.listing`."""
        pairs: list[tuple[int, int]] = []
        offset: Any = None
        with self._errors():
            while self._exists:
                page, offset = self._client.scroll(
                    self._name,
                    scroll_filter=self._mine(),
                    limit=PAGE,
                    offset=offset,
                    with_payload=["fingerprint"],
                )
                pairs += [
                    (int(point.id), (point.payload or {})["fingerprint"])
                    for point in page
                ]
                if offset is None:
                    break
        return Listing.of(pairs)

    def close(self) -> None:
        """As `Engine.close`."""
        with contextlib.suppress(Exception):
            self._client.close()

    def _record(self, token: str) -> None:
        with self._errors():
            self._client.update_collection(
                self._name, metadata={f"token {self.writer}": token}
            )

    def _mine(self) -> Any:
        from qdrant_client import models

        mine = models.MatchValue(value=self.writer)
        return models.Filter(must=[models.FieldCondition(key="writer", match=mine)])

    def _check(self) -> None:
        metadata = self._client.get_collection(self._name).config.metadata or {}
        self._contents.check(metadata.get("contents", ""), self.url)

    def _create(self) -> None:
        from qdrant_client import models

        if self._exists:
            return
        codes = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, always_ram=True
        )
        with self._errors():
            try:
                self._client.create_collection(
                    self._name,
                    vectors_config=models.VectorParams(
                        size=self._contents.dimensions,
                        distance=models.Distance.DOT,
                        on_disk=True,
                    ),
                    hnsw_config=models.HnswConfigDiff(
                        m=EDGES,
                        ef_construct=CONSTRUCTION_EF,
                        full_scan_threshold=GRAPH_FROM,
                    ),
                    quantization_config=models.ScalarQuantization(scalar=codes),
                    metadata={"contents": msgspec.json.encode(self._contents).decode()},
                )
            except Exception:
                # Another writer may just have made it.
                if not self._client.collection_exists(self._name):
                    raise
            self._check()
            for name in (*Filter._fields, "writer"):
                self._client.create_payload_index(
                    self._name, name, models.PayloadSchemaType.KEYWORD
                )
        self._exists = True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of qdrant_client, httpx and pydantic
            raise UserError(f"{self.url}: {one_line(error)[:300]}") from error
