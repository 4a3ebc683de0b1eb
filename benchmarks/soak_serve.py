"""A service under faults: broken uploads, closed connections, hostile images, kills.

Several clients query it, add photos and remove them. Every request that was sent whole
is answered, unless the service was killed meanwhile; no photo is lost, and processes,
threads, open files and memory do not grow.
"""

import collections
import contextlib
import http.client
import io
import itertools
import json
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from tokret.benchmark.noise_photos import noise_photo, numbered
from tokret.benchmark.service_process import Client, Resources, ServiceProcess, form
from tokret.benchmark.synthetic_index import make_extractor
from tokret.benchmark.timing import environment
from tokret.errors import UserError
from tokret.search.catalogue import open_catalogue
from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher

PHOTOS = 48  # of the index at the start
MAX_UPLOAD = 1  # MiB
TOP = 5
# What is done, and how often of 100 times.
WEIGHTS = {
    "query": 54,
    "query like a photo": 10,
    "query of a box": 6,
    "truncated image": 5,
    "no image": 3,
    "too large image": 2,
    "too large upload": 3,
    "broken upload": 4,
    "closed connection": 3,
    "add": 5,
    "remove": 2,
    "page": 3,
}
WAITS = 300.0  # seconds for a service that was killed
RESTS = 15.0  # seconds after which connections are closed


class Photos:
    """The ids that are surely in the index, and those that surely are not."""

    def __init__(self, first: set[str]) -> None:
        """Starts with those of the index."""
        self.kept, self.gone = first, set[str]()
        self.lock = threading.Lock()

    def put(self, photo: str) -> None:
        """Notes a photo that was added."""
        with self.lock:
            self.kept.add(photo)
            self.gone.discard(photo)

    def take(self, chance: random.Random) -> str | None:
        """Takes a photo that is going to be removed; None if few are left."""
        with self.lock:
            if len(self.kept) <= PHOTOS // 2:
                return None
            photo = chance.choice(sorted(self.kept))
            self.kept.remove(photo)
            return photo

    def any(self, chance: random.Random) -> str:
        """A photo that is in the index, or was a moment ago."""
        with self.lock:
            return chance.choice(sorted(self.kept))


class Soak:
    """Clients of a service that is killed now and then."""

    def __init__(self, index: Path, photos: Photos, seed: int) -> None:
        """Starts the service."""
        self._index, self._photos, self._seed = index, photos, seed
        self._options = (f"--max_upload={MAX_UPLOAD}",)
        self._numbers = itertools.count()
        self._image = noise_photo(0, 120, 160)
        self._is_up = threading.Event()
        self.found = collections.Counter[str]()
        self.wrong: list[str] = []
        self.service = ServiceProcess(index, *self._options)
        self._is_up.set()

    def run(self, queries: int, clients: int, kill_at: int | None = None) -> None:
        """Does so many things; at one of them the service is killed and restarted."""
        waiting, reached = iter(range(queries)), threading.Event()

        def work(number: int) -> None:
            chance = random.Random(f"{self._seed} {number} {queries}")
            for done in waiting:
                if done == kill_at:
                    reached.set()
                (name,) = chance.choices([*WEIGHTS], [*WEIGHTS.values()])
                self._do(name, chance)

        with ThreadPoolExecutor(clients + 1) as pool:
            running = [pool.submit(work, number) for number in range(clients)]
            if kill_at is not None:
                running.append(pool.submit(self._restart, reached))
            for each in running:
                each.result()

    def _restart(self, reached: threading.Event) -> None:
        reached.wait()
        self._is_up.clear()
        self.service.kill()
        self.found["kill"] += 1
        self.service = ServiceProcess(self._index, *self._options)
        self._is_up.set()

    def _do(self, name: str, chance: random.Random) -> None:
        """Does one thing; again if the service was killed meanwhile, or was busy."""
        action: Callable[[str, random.Random], str] = {
            "query like a photo": self._query_like,
            "query of a box": self._query_of_box,
            "truncated image": self._truncated,
            "no image": self._no_image,
            "too large image": self._too_many_pixels,
            "too large upload": self._too_many_bytes,
            "broken upload": self._broken,
            "closed connection": self._closed,
            "add": self._add,
            "remove": self._remove,
            "page": self._page,
        }.get(name, self._query)
        last = time.monotonic() + WAITS
        while time.monotonic() < last:
            service = self.service
            try:
                problem = action(service.url, chance)
            except (OSError, http.client.HTTPException) as error:
                # A service that was killed is another one soon.
                time.sleep(0.2)
                if self._is_up.is_set() and self.service is service:
                    self.wrong.append(f"{name}: {error!r}")
                    return
                self._is_up.wait(WAITS)
                self.found["interrupted by a kill"] += 1
                continue
            if problem == "busy":
                self.found[problem] += 1
                time.sleep(0.05)
                continue
            self.found[name] += 1
            if problem:
                self.wrong.append(f"{name}: {problem}")
            return
        self.wrong.append(f"{name}: not answered")

    def _new_photo(self) -> bytes:
        return numbered(self._image, next(self._numbers))

    def _send(
        self, url: str, method: str, path: str, body: bytes = b"", kind: str = ""
    ) -> tuple[int, Any]:
        with contextlib.closing(Client(url)) as client:
            status, content = client.request(method, path, body, kind)
        return status, content

    def _search(self, url: str, photo: bytes, **fields: str) -> str:
        """Why the answer of a query is wrong; "" if it is not."""
        body, kind = form(photo, top=str(TOP), **fields)
        status, content = self._send(url, "POST", "/search", body, kind)
        if status == 429:
            return "busy"
        if status != 200:
            return f"{status} {content[:200]!r}"
        results = json.loads(content)["results"]
        return "" if len(results) == TOP else f"{len(results)} results"

    def _query(self, url: str, chance: random.Random) -> str:
        return self._search(url, self._new_photo())

    def _query_of_box(self, url: str, chance: random.Random) -> str:
        left, upper = chance.randrange(100), chance.randrange(80)
        box = f"{left},{upper},{left + 40},{upper + 30}"
        return self._search(url, self._new_photo(), box=box)

    def _query_like(self, url: str, chance: random.Random) -> str:
        photo = self._photos.any(chance)
        problem = self._search(url, self._new_photo(), like=photo)
        removed = problem.startswith("404") and photo not in self._photos.kept
        return "" if removed else problem

    def _refused(self, url: str, photo: bytes, *statuses: int) -> str:
        body, kind = form(photo)
        status, content = self._send(url, "POST", "/search", body, kind)
        if status == 429:
            return "busy"
        return "" if status in statuses else f"{status} {content[:200]!r}"

    def _truncated(self, url: str, chance: random.Random) -> str:
        photo = self._new_photo()
        return self._refused(url, photo[: chance.randrange(1, len(photo))], 415, 422)

    def _no_image(self, url: str, chance: random.Random) -> str:
        return self._refused(url, chance.randbytes(chance.randrange(1, 9999)), 415, 422)

    def _too_many_pixels(self, url: str, chance: random.Random) -> str:
        buffer = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(buffer, "PNG", compress_level=9)
        return self._refused(url, buffer.getvalue(), 413, 415, 422)

    def _too_many_bytes(self, url: str, chance: random.Random) -> str:
        # The service may close the connection before it has read everything.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._refused(url, bytes((MAX_UPLOAD + 1) * 2**20), 413)
        return ""

    def _broken(self, url: str, chance: random.Random) -> str:
        head, body = self._request(url)
        with self._connected(url) as connection:
            connection.sendall(head + body[: chance.randrange(len(body))])
        return ""

    def _closed(self, url: str, chance: random.Random) -> str:
        with self._connected(url) as connection:
            connection.sendall(b"".join(self._request(url)))
        return ""

    def _request(self, url: str) -> tuple[bytes, bytes]:
        body, kind = form(self._new_photo())
        head = (
            f"POST /search HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode(), body

    def _connected(self, url: str) -> socket.socket:
        where = urlsplit(url)
        return socket.create_connection((where.hostname, where.port), 60.0)

    def _add(self, url: str, chance: random.Random) -> str:
        body, kind = form(self._new_photo(), folder=f"added {chance.randrange(3)}")
        status, content = self._send(url, "POST", "/photos", body, kind)
        if status == 429:
            return "busy"
        if status != 201:
            return f"{status} {content[:200]!r}"
        for photo in json.loads(content)["photos"]:
            self._photos.put(photo["id"])
        return ""

    def _remove(self, url: str, chance: random.Random) -> str:
        photo = self._photos.take(chance)
        if photo is None:
            return ""
        status, content = self._send(url, "DELETE", f"/photos/{photo}")
        if status != 200:
            return f"{status} {content[:200]!r}"
        self._photos.gone.add(photo)
        return ""

    def _page(self, url: str, chance: random.Random) -> str:
        for path in ("/", "/filters", "/photos", "/healthz", "/metrics"):
            status, content = self._send(url, "GET", path)
            if status != 200:
                return f"{path}: {status} {content[:200]!r}"
        return ""

    def at_rest(self) -> Resources:
        """What the service uses once all connections are closed."""
        time.sleep(RESTS)
        return self.service.resources()


def run(queries: int, clients: int, kills: int, seed: int) -> dict[str, Any]:
    """Soaks a service of a new index.

    Args:
      queries: how many, and other things between them.
      clients: at once.
      kills: how often the service is killed, in the first half.
      seed: another one has other faults.

    Raises:
      UserError: for arguments out of range.
    """
    if queries < 4 * clients or clients < 1 or kills < 0:
        raise UserError(f"queries={queries} is less than 4 for each of the clients")
    with tempfile.TemporaryDirectory() as name:
        root, index = Path(name, "photos"), Path(name, "index")
        (root / "first").mkdir(parents=True)
        for number in range(PHOTOS):
            photo = noise_photo(number + 1, 120, 160)
            (root / "first" / f"{number}.jpg").write_bytes(photo)
        extractor = make_extractor(Path(name, "model"), 64, "tiny")
        update_index(root, index, lambda copy: extractor)
        with open_catalogue(index) as catalogue:
            photos = Photos({entry.digest for entry in catalogue.entries()})
        soak = Soak(index, photos, seed)
        try:
            each = queries // 2 // max(1, kills)
            for _ in range(kills):
                soak.run(each, clients, kill_at=each // 2)
            soak.run(queries // 4, clients)
            before = soak.at_rest()
            soak.run(queries // 4, clients)
            after = soak.at_rest()
        finally:
            status = soak.service.stop()
        lost = _lost(index, photos, lambda copy: extractor)
    return {
        "benchmark": "soak",
        "environment": environment("numpy", "jax", "starlette", "uvicorn"),
        "queries": queries,
        "clients": clients,
        "done": dict(soak.found),
        "wrong": soak.wrong,
        "lost": lost,
        "status": status,
        "before": before._asdict(),
        "after": after._asdict(),
    }


def _lost(index: Path, photos: Photos, load: Callable[[str], Any]) -> list[str]:
    """The photos that the index lacks, and those that it should not have."""
    with open_catalogue(index) as catalogue:
        catalogue.check()
    searcher = Searcher(index, load)  # which compares all checksums
    missing = [each for each in photos.kept if searcher.photo(each) is None]
    back = [each for each in photos.gone if searcher.photo(each) is not None]
    return [*missing, *(f"{each} is there again" for each in back)]


def report(result: Mapping[str, Any]) -> str:
    """Formats what `run` returns."""
    lines = [f"{count:>7} x {name}" for name, count in sorted(result["done"].items())]
    for name, before in result["before"].items():
        lines.append(f"{name:<20}{before:>14,}{result['after'][name]:>14,}")
    lines += [f"wrong: {words}" for words in result["wrong"][:20]]
    lines.append(
        f"{len(result['wrong'])} wrong answers; {len(result['lost'])} photos lost; "
        f"ended with status {result['status']}"
    )
    return "\n".join(lines)
