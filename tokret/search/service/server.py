"""The running service: a socket, a thread that answers, and its end by a signal."""

import asyncio
import contextlib
import dataclasses
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from tokret.errors import UserError
from tokret.names import counted
from tokret.runtime import signals
from tokret.search.searcher import Searcher
from tokret.search.service.app import make_app
from tokret.search.service.guard import Access, is_loopback
from tokret.search.service.service_file import remove_service, write_service
from tokret.search.service.state import Loaded, Service

BACKLOG = 128  # connections that wait to be accepted
CONNECTIONS = 512  # at once; more are answered with 503
IDLE = 10  # seconds until a connection without requests is closed
ANY = ("0.0.0.0", "::", "")


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a service listens; port 0 takes any that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    def bind(self) -> socket.socket:
        """Binds a socket, on which nothing is accepted yet.

        Raises:
          UserError: if the address cannot be bound.
        """
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with contextlib.ExitStack() as stack:
                bound = stack.enter_context(socket.socket(family, kind, protocol))
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.bind(address)
                bound.listen(BACKLOG)
                stack.pop_all()
                return bound
        except socket.gaierror as error:
            raise UserError(f"host={self.host} is not an address here") from error
        except OSError as error:
            raise UserError(self._why(error)) from error

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"port={self.port} is in use on {self.host}; choose another"
        if error.errno == errno.EACCES:
            return f"port={self.port} needs more rights; choose one of 1024 to 65535"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"host={self.host} is not an address of this machine"
        return f"port={self.port} of {self.host} cannot be bound: {error.strerror}"

    def url(self, bound: socket.socket) -> str:
        """What to open; of all addresses the loopback's."""
        return _url("127.0.0.1" if self.host in ANY else self.host, bound)

    def others_url(self, bound: socket.socket) -> str:
        """What other devices open; "" if only this machine reaches it."""
        if is_loopback(self.host):
            return ""
        return _url(own_address() if self.host in ANY else self.host, bound)

    def _name(self) -> str:
        return socket.gethostname() if self.host in ANY else self.host

    def access(self, token: str, proxied: Sequence[str] = ()) -> Access:
        """Which requests are answered here."""
        others = frozenset(each.lower() for each in proxied)
        return Access({self._name().lower()}, others, self.host in ANY, token)


def _url(host: str, bound: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}"


def own_address() -> str:
    """The IP address by which this machine reaches others; its name if there is none.

    Nothing is sent: connecting a datagram socket only chooses the interface.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as chosen:
        try:
            chosen.connect(("192.0.2.1", 9))  # of no machine (RFC 5737)
            return str(chosen.getsockname()[0])
        except OSError:  # no network
            return socket.gethostname()


def run(
    service: Service,
    bound: socket.socket,
    url: str,
    index: Path,
    load: Callable[[], Searcher],
    log: Callable[[str], None],
    access_log: bool = False,
    note: str = "",
) -> None:
    """Serves an index until SIGTERM or SIGINT.

    Requests are answered with 503 while the index is being loaded.

    Args:
      service: not open yet.
      bound: of `Address.bind`.
      url: to open.
      index: its folder.
      load: opens it.
      log: called with a line for each stage of the start.
      access_log: whether requests are printed.
      note: a line for `log` after the url.

    Raises:
      UserError: if the index cannot be opened.
    """
    if access_log:
        requests = logging.getLogger("uvicorn.access")
        requests.addHandler(logging.StreamHandler(sys.stdout))
        requests.setLevel(logging.INFO)
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=service.limits.stop_seconds,
        ws="none",
        loop="asyncio",
    )
    server = uvicorn.Server(config)
    with bound, _answering(server, bound) as finish:
        loaded = Loaded(index, load(), service.limits, service.metrics, log)
        service.open(loaded)
        stop = threading.Event()
        # Until the end: a second SIGTERM changes nothing.
        with signals.noticed(lambda _: None, _stopping(stop)):
            try:
                _announce(service, loaded, index, url, log)
                if note:
                    log(note)
                while not stop.wait(1.0) and not server.should_exit:
                    pass
            finally:
                service.stopping = True
                remove_service(index, service.name)
                finish()
                service.close()
            if not stop.is_set():
                raise UserError("the server has ended unexpectedly; start it again")
            log("stopped")


def _announce(
    service: Service, loaded: Loaded, index: Path, url: str, log: Callable[[str], None]
) -> None:
    searcher = loaded.searcher
    other = "tokret query takes another service, which runs already"
    try:
        found = write_service(index, url, service.name)
    except UserError as error:  # of an index that cannot be written
        found, other = False, f"tokret query does not find this service: {error}"
    log(f"{url} searches {counted(searcher.num_photos, 'photo')} of {searcher.root}")
    if not found:
        log(other)


def _stopping(stop: threading.Event) -> Callable[[int], None]:
    """Stops at the first signal; a second Ctrl-C ends the process at once."""

    def notice(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            signals.end_now(number, "interrupted")
        stop.set()

    return notice


@contextlib.contextmanager
def _answering(
    server: uvicorn.Server, bound: socket.socket
) -> Iterator[Callable[[], None]]:
    """A thread that answers requests; yields what ends it, once they are answered."""

    def answer() -> None:
        asyncio.run(server.serve(sockets=[bound]))

    def finish() -> None:
        server.should_exit = True
        thread.join()

    thread = threading.Thread(target=answer, name="server", daemon=True)
    thread.start()
    try:
        yield finish
    finally:
        finish()
