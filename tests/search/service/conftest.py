import contextlib
import dataclasses

import pytest
from starlette.testclient import TestClient

from tests.search.conftest import checkpoint, loaded, photos  # noqa: F401 (fixtures)
from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher
from tokret.search.service.app import make_app
from tokret.search.service.guard import Access
from tokret.search.service.limits import Limits
from tokret.search.service.state import Loaded, Service

SMALL = Limits(decoders=1, batch_wait=0.0)


@pytest.fixture
def index(photos, loaded, tmp_path):  # noqa: F811
    """An index of nine photos."""
    folder = tmp_path / "index"
    update_index(photos, folder, lambda copy: loaded)
    return folder


@pytest.fixture
def serve(index, loaded):  # noqa: F811
    """Returns a context manager: a client of a service of the index."""

    @contextlib.contextmanager
    def start(access=None, read_only=False, **limits):
        service = Service(
            dataclasses.replace(SMALL, **limits),
            access or Access({"testserver"}),
            read_only,
        )
        searcher = Searcher(index, lambda copy: loaded)
        with TestClient(make_app(service), raise_server_exceptions=False) as client:
            service.open(Loaded(searcher, service.limits, service.metrics))
            client.service = service
            yield client
            service.close()

    return start


@pytest.fixture
def client(serve):
    """A client of a service of the index."""
    with serve() as client:
        yield client
