"""Milvus: a server or a cluster of them, by pymilvus. Tested against a server.

Filters compare hashes of folders and labels, so that no name is ever a part of an
expression, whatever characters it has.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.names import one_line
from tokret.search.engines.points import (
    Contents,
    Listing,
    Points,
    read_payload,
    text_hash,
)
from tokret.search.engines.protocol import EVERYTHING, Candidate, Filter, Stats
from tokret.shapes import Float, Shaped

if TYPE_CHECKING:
    import pymilvus

# As Qdrant Edge's, but without codes: the server compares float32.
EDGES, CONSTRUCTION_EF, SEARCH_EF = 16, 200, 512
PAGE = 10_000  # points listed together
MAX_VALUES = 4096  # folders or labels of a photo: a limit of Milvus
MAX_PAYLOAD = 60_000  # bytes: Milvus has 65,536
SECONDS = 60.0  # for an answer
TOKEN = "tokret.token."  # with the writer's name, a property of the collection


class MilvusEngine:
    """A collection of a Milvus server."""

    def __init__(self, url: str, contents: Contents, writer: str) -> None:
        """Connects; a collection that does not exist is made by the first update.

        Args:
          url: milvus://host:port/collection
          contents: of the collection.
          writer: whose points are added and deleted.

        Raises:
          UserError: the server cannot be reached, or the collection has other contents.
        """
        import pymilvus

        # It logs what it raises, with tracebacks.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.writer, self.url, self._contents = writer, url, contents
        self._hash = text_hash(writer)
        address, _, self._name = url.removeprefix("milvus://").partition("/")
        with self._errors():
            self._client = pymilvus.MilvusClient(f"http://{address}", timeout=SECONDS)
            self._exists = self._client.has_collection(self._name)
            if self._exists:
                self._check()
                self._load()

    def claim(self, token: str) -> None:
        """As `Engine.claim`."""
        self._create()
        self._record(token)

    def add(self, points: Points) -> None:
        """As `Engine.add`."""
        rows = [
            {
                "id": _signed(point),
                "descriptor": descriptor,
                "writer": self._hash,
                "fingerprint": payload.fingerprint(),
                "folders": _hashes(payload.folders()),
                "labels": _hashes(payload.labels()),
                "photo": payload.bounded(MAX_PAYLOAD),
            }
            for point, descriptor, payload in zip(
                points.ids.tolist(), points.descriptors, points.payloads, strict=True
            )
        ]
        self._create()
        with self._errors():
            self._client.upsert(self._name, rows)

    def delete(self, ids: Shaped[np.ndarray, " n"]) -> None:
        """As `Engine.delete`."""
        if self._exists:
            with self._errors():
                points = [_signed(point) for point in ids.tolist()]
                self._client.delete(self._name, ids=points)

    def build(self, token: str) -> None:
        """As `Engine.build`."""
        self._create()
        with self._errors():
            self._client.flush(self._name)
            while not self._is_indexed():
                time.sleep(0.2)
            self._count(f"writer == {self._hash}")  # waits until all is searched
        self._record(token)

    def search(
        self,
        queries: Float[np.ndarray, "q d"],
        top: int,
        only: Filter = EVERYTHING,
    ) -> list[list[Candidate]]:
        """As `Engine.search`."""
        if not self._exists:
            return [[] for _ in queries]
        conditions = [
            f"array_contains_any({field}, {_hashes(values)})"
            for field, values in only._asdict().items()
            if values
        ]
        with self._errors():
            found = self._client.search(
                self._name,
                list(queries),
                filter=" and ".join(conditions),
                limit=top,
                output_fields=["photo"],
                search_params={"params": {"ef": max(SEARCH_EF, 2 * top)}},
                consistency_level="Bounded",
            )
        return [
            [
                Candidate(
                    hit["id"] % 2**64,
                    hit["distance"],
                    read_payload(hit["entity"]["photo"], self.url),
                )
                for hit in hits
            ]
            for hits in found
        ]

    def stats(self) -> Stats:
        """As `Engine.stats`."""
        if not self._exists:
            return Stats(0, 0, "")
        with self._errors():
            properties = self._client.describe_collection(self._name)["properties"]
            mine, total = self._count(f"writer == {self._hash}"), self._count("")
        return Stats(mine, total, properties.get(TOKEN + self.writer, ""))

    def listing(self) -> Listing:
        """As `Engine.listing`."""
        pairs: list[tuple[int, int]] = []
        if self._exists:
            with self._errors():
                pages = self._client.query_iterator(
                    self._name,
                    batch_size=PAGE,
                    filter=f"writer == {self._hash}",
                    output_fields=["id", "fingerprint"],
                    consistency_level="Strong",
                )
                while page := pages.next():
                    pairs += [(row["id"] % 2**64, row["fingerprint"]) for row in page]
                pages.close()
        return Listing.of(pairs)

    def close(self) -> None:
        """As `Engine.close`."""
        with contextlib.suppress(Exception):
            self._client.close()

    def _is_indexed(self) -> bool:
        index = self._client.describe_index(self._name, "descriptor")
        if index.get("state") == "Failed":
            why = one_line(index.get("index_state_fail_reason", ""))[:200]
            raise UserError(f"{self.url}: its graph cannot be built: {why}")
        # Not `pending_index_rows`, which counts rows that are compacted later too.
        return bool(index.get("indexed_rows", 0) >= index.get("total_rows", 0))

    def _record(self, token: str) -> None:
        with self._errors():
            self._client.alter_collection_properties(
                self._name, {TOKEN + self.writer: token}
            )

    def _count(self, condition: str) -> int:
        (row,) = self._client.query(
            self._name,
            filter=condition,
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        count: int = row["count(*)"]
        return count

    def _check(self) -> None:
        text = self._client.describe_collection(self._name)["description"]
        self._contents.check(text, self.url)

    def _load(self) -> None:
        """Lets servers load the collection, unless they have, into some replicas."""
        from pymilvus.client.types import LoadState

        state = self._client.get_load_state(self._name)["state"]
        if state != LoadState.Loaded:
            self._client.load_collection(self._name)

    def _create(self) -> None:
        if self._exists:
            return
        with self._errors():
            try:
                self._client.create_collection(
                    self._name, schema=self._schema(), index_params=self._index()
                )
            except Exception:
                # Another writer may just have made it.
                if not self._client.has_collection(self._name):
                    raise
            self._check()
            self._load()
        self._exists = True

    def _schema(self) -> "pymilvus.CollectionSchema":
        from pymilvus import DataType

        schema = self._client.create_schema(
            auto_id=False, description=msgspec.json.encode(self._contents).decode()
        )
        dimensions = self._contents.dimensions
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("descriptor", DataType.FLOAT_VECTOR, dim=dimensions)
        schema.add_field("writer", DataType.INT64)
        schema.add_field("fingerprint", DataType.INT64)
        for name in Filter._fields:
            schema.add_field(
                name,
                DataType.ARRAY,
                element_type=DataType.INT64,
                max_capacity=MAX_VALUES,
            )
        schema.add_field("photo", DataType.JSON)
        return schema

    def _index(self) -> Any:
        index = self._client.prepare_index_params()
        index.add_index(
            "descriptor",
            index_type="HNSW",
            metric_type="IP",  # of L2-normalised descriptors, the cosine
            params={"M": EDGES, "efConstruction": CONSTRUCTION_EF},
        )
        return index

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of pymilvus and of gRPC
            why = one_line(getattr(error, "message", "") or error)[:300]
            raise UserError(f"{self.url}: {why}") from error


def _signed(point: int) -> int:
    """An id of 64 bits as Milvus has them."""
    return point - 2**64 if point >= 2**63 else point


def _hashes(names: Any) -> list[int]:
    return [text_hash(name) for name in names][:MAX_VALUES]
