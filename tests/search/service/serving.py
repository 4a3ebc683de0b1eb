"""A service in a thread of this process, on a port of its own."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from tokret.search.extractor import Extractor
from tokret.search.searcher import Searcher
from tokret.search.service.app import make_app
from tokret.search.service.limits import Limits
from tokret.search.service.server import Address
from tokret.search.service.state import Loaded, Service


@contextlib.contextmanager
def serving(
    index: Path, extractor: Extractor, token: str = "", read_only: bool = False
) -> Iterator[str]:
    """Serves an index and yields the URL of its page."""
    address = Address(port=0)
    limits = Limits(decoders=1, batch=1, batch_wait=0.0, decode_seconds=60.0)
    service = Service(limits, address.access(token), read_only)
    # Not uvloop, which forks: JAX warns of it.
    config = uvicorn.Config(
        make_app(service), log_config=None, ws="none", loop="asyncio"
    )
    server = uvicorn.Server(config)
    with address.bind() as bound:
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            searcher = Searcher(index, lambda copy: extractor)
            service.open(Loaded(index, searcher, limits, service.metrics))
            yield address.url(bound) + "/"
        finally:
            server.should_exit = True
            thread.join()
            service.close()
