import contextlib
import dataclasses

import pytest
from starlette.testclient import TestClient

from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher
from tokret.search.service.app import make_app
from tokret.search.service.guard import Access
from tokret.search.service.limits import Limits
from tokret.search.service.state import Loaded, Service

HOST = "testserver"  # of Starlette's client
SMALL = Limits(decoders=1, batch=1, batch_wait=0.0, decode_seconds=60.0)


@pytest.fixture
def index(photos, load, tmp_path):
    """An index of nine photos."""
    folder = tmp_path / "index"
    update_index(photos, folder, load)
    return folder


@pytest.fixture
def serve(index, load):
    """Returns a context manager: a client of a service of the index."""

    @contextlib.contextmanager
    def start(*, access=None, read_only=False, load=load, **limits):
        service = Service(
            dataclasses.replace(SMALL, **limits), access or Access({HOST}), read_only
        )
        searcher = Searcher(index, load)
        with TestClient(make_app(service), raise_server_exceptions=False) as client:
            service.open(Loaded(index, searcher, service.limits, service.metrics))
            client.service = service  # type: ignore[attr-defined]
            yield client
            service.close()

    return start


@pytest.fixture
def client(serve):
    """A client of a service of the index."""
    with serve() as client:
        yield client


@pytest.fixture(scope="session")
def search():
    """Returns a function that sends a query: fields, and files by the field's name."""

    def send(client, *files, **fields):
        parts = [(name, ("a name.jpg", content)) for name, content in files]
        # A form of fields alone would not be multipart.
        texts = [
            (name, (None, str(value)))
            for name, values in fields.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        return client.post("/search", files=parts + texts)

    return send
