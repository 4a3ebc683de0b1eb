"""A service as a process of its own, and a client of it: queries, memory, threads."""

import contextlib
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tokret.errors import UserError
from tokret.search.service.service_file import FILE, running_service

STARTS = 600.0  # seconds until a service is ready at the latest
ENDS = 120.0  # and until it has ended
KEPT = 5.0  # and that a connection without requests is kept; services close it too


class Resources(NamedTuple):
    """Of a process and those that it has started."""

    proportional_bytes: int  # PSS: pages of several processes count in part
    anonymous_bytes: int  # of them those that are of no file
    threads: int
    files: int
    processes: int


class ServiceProcess:
    """A running `tokret serve`.

    Attributes:
      url: without a slash at its end.
      pid: of its process.
      start_seconds: from its start until it was ready.
    """

    def __init__(self, index: Path, *options: str) -> None:
        """Serves an index on a free port, and waits until it is ready.

        Raises:
          UserError: if it ends before, or needs longer than `STARTS`.
        """
        (index / FILE).unlink(missing_ok=True)  # of one that was killed
        command = [sys.executable, "-m", "tokret", "serve", f"--index={index}"]
        start = time.monotonic()
        self._process = subprocess.Popen(
            [*command, "--port=0", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid, self.url = self._process.pid, ""
        while self._process.poll() is None and time.monotonic() - start < STARTS:
            found = running_service(index)
            if found is not None and found.pid == self.pid:
                self.url = found.url
                if self._is_ready():
                    self.start_seconds = time.monotonic() - start
                    return
            time.sleep(0.02)
        self.kill()
        raise UserError(f"the service of index={index} did not become ready")

    def _is_ready(self) -> bool:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(Client(self.url)) as client,
        ):
            return client.get("/healthz")[0] == 200
        return False

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ends it as Ctrl-C would, after running requests; returns its status."""
        self._process.terminate()
        try:
            return self._process.wait(ENDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def processor_seconds(self) -> float:
        """What its own process has used of the processors so far (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resources(self) -> Resources:
        """What it uses now (Linux)."""
        pids = _with_children(self.pid)
        memory = [_memory(pid) for pid in pids]
        return Resources(
            sum(pss for pss, _ in memory),
            sum(anonymous for _, anonymous in memory),
            sum(_count(pid, "task") for pid in pids),
            sum(_count(pid, "fd") for pid in pids),
            len(pids),
        )


@contextlib.contextmanager
def served(index: Path, *options: str) -> Iterator[ServiceProcess]:
    """Serves an index on a free port until the context ends.

    Raises:
      UserError: if it does not become ready.
    """
    service = ServiceProcess(index, *options)
    try:
        yield service
    finally:
        service.stop()


class Client:
    """A connection, for one thread."""

    def __init__(self, url: str, timeout: float = 120.0) -> None:
        """Connects at the first request."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=timeout
        )
        self._used = 0.0

    def request(
        self, method: str, path: str, body: bytes = b"", kind: str = ""
    ) -> tuple[int, bytes]:
        """Returns the status and the body of an answer."""
        headers = {"Content-Type": kind} if kind else {}
        if time.monotonic() - self._used > KEPT:
            self._connection.close()  # and connects again
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            found = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        self._used = time.monotonic()
        return found

    def get(self, path: str) -> tuple[int, bytes]:
        """Returns the status and the body of a GET."""
        return self.request("GET", path)

    def search(self, photo: bytes, **fields: str) -> tuple[int, dict[str, Any]]:
        """Returns the status and the answer of a query with a photo."""
        status, content = self.request("POST", "/search", *form(photo, **fields))
        return status, json.loads(content)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def form(photo: bytes, **fields: str) -> tuple[bytes, str]:
    """A form with a photo: its body and its type."""
    mark = secrets.token_hex(16)
    lines = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = (
        f'{"".join(lines)}--{mark}\r\nContent-Disposition: form-data; name="photo"; '
        'filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head.encode() + photo + f"\r\n--{mark}--\r\n".encode()
    return body, f"multipart/form-data; boundary={mark}"


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += _with_children(int(child))
    return found


def _memory(pid: int) -> tuple[int, int]:
    """PSS, and its anonymous part, in bytes; 0 of a process that has ended."""
    found = {"Pss": 0, "Pss_Anon": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            if name in found:
                found[name] = 1024 * int(value.split()[0])
    return found["Pss"], found["Pss_Anon"]


def _count(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/{kind}"))
    return 0
