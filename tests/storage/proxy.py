"""A proxy between programs and a server of object storage, with faults by a plan.

It passes a request on when all of it has arrived. The servers of the tests store what
arrived of one that was cut, as no real storage does; programs that are killed while
they upload need the proxy, with or without faults.
"""

import http.client
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Request(NamedTuple):
    """A request: its number from 0, method, path with query, and bytes of its body."""

    number: int
    method: str
    path: str
    size: int


class Fault(NamedTuple):
    """What happens to a request.

    Attributes:
      kind: "answer" by `status` and `body`, not passed on; "lost", passed on, but
        answered so; "cut", before all of it was received; "cut answer", in the middle
        of its body; "delay" of `seconds`; "silent", without an answer for `seconds`;
        "unread", of whose body nothing is read for `seconds`.
    """

    kind: str
    status: int = 503
    body: bytes = b""
    seconds: float = 0.0


Plan = Callable[[Request], Fault | None]


def no_faults(request: Request) -> Fault | None:
    """The plan of a proxy that only passes on."""
    return None


def seeded(seed: int, rate: float, faults: tuple[Fault, ...]) -> Plan:
    """A plan by which a fraction of the requests meets one of some faults."""
    draws, lock = random.Random(seed), threading.Lock()

    def plan(request: Request) -> Fault | None:
        with lock:
            return draws.choice(faults) if draws.random() < rate else None

    return plan


class Proxy(ThreadingHTTPServer):
    """Serves on a free port of this machine, in threads, until `close`.

    Attributes:
      plan: what happens to each request; may be set at any time.
      requests: those so far.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        """Starts it in front of the server on a port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.plan: Plan = no_faults
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method: str, path: str, size: int) -> Request:
        with self._lock:
            request = Request(len(self.requests), method, path, size)
            self.requests.append(request)
        return request

    def reset(self) -> None:
        self.plan = no_faults
        self.requests.clear()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        request = self.server.count(self.command, self.path, size)
        fault = self.server.plan(request)
        if fault and fault.kind in ("cut", "unread"):
            time.sleep(fault.seconds)
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        chunked = "Transfer-Encoding" in self.headers
        body = self.read_chunks() if chunked else self.rfile.read(size)
        if body is None or len(body) < size:
            self.close_connection = True  # a client that was killed
            return
        if fault and fault.kind in ("delay", "silent"):
            time.sleep(fault.seconds)
            if fault.kind == "silent":
                self.close_connection = True
                return
        if fault and fault.kind == "answer":
            self.answer(fault.status, {}, fault.body)
            return
        status, headers, content = self.pass_on(body)
        if fault and fault.kind == "lost":
            self.answer(fault.status, {}, fault.body)
            return
        cut = fault is not None and fault.kind == "cut answer"
        self.answer(status, headers, content, cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any

    def read_chunks(self) -> bytes | None:
        """The body; None if it was cut."""
        chunks = []
        while (line := self.rfile.readline()) and (size := int(line, 16)):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(chunks) if self.rfile.readline() else None

    def pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.command == "DELETE" and "upload_id=" in self.path:
            return 499, {}, b""  # as Google's; the emulator has no such request
        headers = self.headers.items()
        kept = {n: v for n, v in headers if n.lower() not in OF_A_CONNECTION}
        kept.pop("Content-Length", None)
        if body or self.command in ("PUT", "POST", "PATCH"):
            kept["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in kept.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            found = connection.getresponse()
            return found.status, dict(found.getheaders()), found.read()
        finally:
            connection.close()

    def answer(
        self, status: int, headers: dict[str, str], body: bytes, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        size = str(len(body))
        for name, value in headers.items():
            if name.lower() == "content-length":
                size = value  # of the object, of which HEAD sends no byte
            elif name.lower() not in OF_A_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", size)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing is printed."""
