"""Engines as the tests start them: each can be opened several times."""

import dataclasses
import importlib.util
import re
import socket
import time
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tokret.search.engines.edge import EdgeEngine
from tokret.search.engines.milvus import MilvusEngine
from tokret.search.engines.points import ALONE, Contents, PhotoFile
from tokret.search.engines.protocol import Engine
from tokret.search.engines.qdrant import QdrantEngine
from tokret.search.engines.updating import Part, Source

DIMS = 16
CONTENTS = Contents("model", DIMS)
PEERS = 2380  # the port of Milvus' etcd, which is always this one


@pytest.fixture(scope="session")
def milvus_address(tmp_path_factory) -> Iterator[str]:
    """HOST:PORT of a Milvus server of this machine, started for the tests."""
    if importlib.util.find_spec("milvus") is None:
        pytest.skip("the package milvus, which has a server, is not installed")
    from milvus import MilvusServer

    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PEERS)) == 0:
            pytest.skip(f"port {PEERS} is in use, as by another Milvus: stop it first")
    folder = tmp_path_factory.mktemp("milvus")
    server = MilvusServer(wait_for_started=False)
    server.set_base_dir(str(folder))
    server.start()
    try:
        health = f"http://127.0.0.1:{server.webservice_port}/healthz"
        while not _answers(health):
            assert server.server_proc.poll() is None, f"it ended; see {folder}/logs"
            time.sleep(0.2)
        yield f"127.0.0.1:{server.listen_port}"
    finally:
        server.stop()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return b"OK" in answer.read()
    except OSError:
        return False


@pytest.fixture
def open_edge(tmp_path):
    return lambda contents=CONTENTS: EdgeEngine(tmp_path / "engine", contents)


@pytest.fixture
def open_qdrant():
    """In the client's local mode, which is not the server."""
    import qdrant_client

    client = qdrant_client.QdrantClient(":memory:")
    client.close = lambda: None  # several engines use it

    def start(contents=CONTENTS, writer=ALONE):
        url = "qdrant://127.0.0.1:6333/photos"
        return QdrantEngine(url, contents, writer, client)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect")
        warnings.filterwarnings("ignore", "Local mode performs exact")
        yield start


@pytest.fixture
def open_milvus(milvus_address):
    url = f"milvus://{milvus_address}/photos_{uuid.uuid4().hex}"
    return lambda contents=CONTENTS, writer=ALONE: MilvusEngine(url, contents, writer)


SLOW = pytest.param("open_milvus", marks=pytest.mark.slow, id="milvus")


@pytest.fixture(params=["open_edge", "open_qdrant", SLOW])
def start(request) -> Callable[..., Engine]:
    """Opens an engine of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["open_qdrant", SLOW])
def start_shared(request) -> Callable[..., Engine]:
    """Opens an engine of each kind that several indexes may fill."""
    return request.getfixturevalue(request.param)


@dataclasses.dataclass
class Library:
    """Photos without an index: paths by digest, and descriptors."""

    files: dict[str, list[str]]
    seed: int = 0
    identity: str = "mine"

    def descriptor(self, digest):
        rng = np.random.default_rng([self.seed, int(digest, 16)])
        row = rng.standard_normal(DIMS)
        return (row / np.linalg.norm(row)).astype(np.float32)

    def source(self, parts=3):
        digests = sorted(self.files)
        return Source(
            lambda: [self._part(digests[number::parts]) for number in range(parts)],
            CONTENTS.model,
            f"{self.identity}:{sorted(self.files.items())}",
            self.identity,
        )

    def _part(self, digests):
        files = [
            [PhotoFile(path, path.split("/")[-2], 7, 8) for path in self.files[digest]]
            for digest in digests
        ]
        backwards = list(range(len(digests)))[::-1]
        rows = np.array([self.descriptor(d) for d in digests[::-1]], np.float32)
        return Part(digests, files, backwards, lambda: rows.reshape(-1, DIMS))

    def best(self, query, top, below=""):
        """The digests of the exact answer, of paths that match a regular expression."""
        scores = {
            digest: float(self.descriptor(digest) @ query)
            for digest, paths in self.files.items()
            if any(re.match(below, path) for path in paths)
        }
        return sorted(scores, key=lambda digest: -scores[digest])[:top]


@pytest.fixture
def library():
    """Forty photos in folders whose names are as hostile as names may be."""
    odd = ['a"b', "c'd", "e\\", '") or (1 == 1', "{x}", "é ü 😀", "%", "a"]
    rng = np.random.default_rng(5)
    digests = [f"{number:016x}" for number in rng.integers(0, 2**64, 40, np.uint64)]
    # Both ends of what an id may be.
    digests[:2] = ["0" * 16, "f" * 16]
    return Library(
        {
            digest: [f"{odd[i % len(odd)]}/{'below' if i % 3 else 'b'}/{i}.jpg"]
            for i, digest in enumerate(digests)
        }
    )


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
