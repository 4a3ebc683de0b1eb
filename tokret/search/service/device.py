"""The thread that owns the devices: queries of several requests in one batch.

Each turn takes all that is waiting: photos to embed, in batches; descriptors to search
for, those with the same filters in one search; and other calls. The first photo of a
batch waits a few milliseconds for those that are being decoded.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tokret.search.filters import Filters
from tokret.search.searcher import Hit
from tokret.search.service.programs import BATCH_SIZES
from tokret.shapes import Float, UInt8

Result = TypeVar("Result")
Embed = Callable[
    [Sequence[UInt8[np.ndarray, "h w 3"]]],
    tuple[Float[np.ndarray, "n d"], list[int]],
]
Search = Callable[[Float[np.ndarray, "n d"], int, Filters], list[list[Hit]]]


class _Photo(NamedTuple):
    pixels: UInt8[np.ndarray, "h w 3"]
    future: "Future[Float[np.ndarray, ' d']]"


class _Query(NamedTuple):
    descriptor: Float[np.ndarray, " d"]
    top: int
    filters: Filters
    future: Future[list[Hit]]


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: Future[Any]


Job = TypeVar("Job", _Photo, _Query, _Call)


class Device:
    """Embeds and searches in one thread."""

    def __init__(
        self,
        embed: Embed,
        search: Search,
        batch_wait: float,
        before: Callable[[], object] = lambda: None,
        batched: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Starts the thread.

        Args:
          embed: as `Programs.embed`.
          search: as `Searcher.search`.
          batch_wait: how long a photo waits for others, in seconds.
          before: called in the thread before each turn.
          batched: called with the number of photos of each batch.
        """
        self._embed, self._search, self._batch_wait = embed, search, batch_wait
        self._before, self._batched = before, batched
        self._changed = threading.Condition()
        self._photos: list[_Photo] = []
        self._queries: list[_Query] = []
        self._calls: list[_Call] = []
        self._decoding, self._returning, self._stopping = 0, 0, False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """While it lasts, another photo is expected."""
        with self._changed:
            self._decoding += 1
        try:
            yield
        finally:
            with self._changed:
                self._decoding -= 1
                self._changed.notify()

    def waiting(self) -> int:
        """The number of photos and queries that no turn has taken."""
        return len(self._photos) + len(self._queries)

    def embed(
        self, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> "Future[Float[np.ndarray, ' d']]":
        """Extracts the descriptor of a decoded photo."""
        return self._add(self._photos, _Photo(pixels, Future()))

    def search(
        self, descriptor: Float[np.ndarray, " d"], top: int, filters: Filters
    ) -> Future[list[Hit]]:
        """Searches for the photos most similar to a descriptor."""
        return self._add(self._queries, _Query(descriptor, top, filters, Future()))

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Calls a function that uses the devices or the index."""
        return self._add(self._calls, _Call(function, Future()))

    def stop(self, seconds: float) -> None:
        """Ends the thread once it has done what is waiting, or after some seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    def _add(self, jobs: Any, job: Any) -> Any:
        with self._changed:
            if self._stopping:
                raise RuntimeError("the device's thread has ended")
            jobs.append(job)
            self._changed.notify()
        return job.future

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._any())
                if not self._any():
                    return
                self._await_others()
                jobs = self._photos, self._queries, self._calls
                photos, queries, calls = (_taken(each) for each in jobs)
                self._returning = len(photos)  # most are searched for next
            self._turn(photos, queries, calls)

    def _any(self) -> bool:
        return bool(self._photos or self._queries or self._calls)

    def _await_others(self) -> None:
        """Waits for a fuller batch or search, unless something else is to be done."""

        def waits() -> bool:
            photos, queries = len(self._photos), len(self._queries)
            if self._calls or self._stopping:
                return False
            if queries:
                return queries < self._returning
            return self._decoding > 0 and photos < BATCH_SIZES[-1]

        self._changed.wait_for(lambda: not waits(), timeout=self._batch_wait)

    def _turn(
        self, photos: list[_Photo], queries: list[_Query], calls: list[_Call]
    ) -> None:
        # Of those that are not waited for any more nothing is computed.
        calls, queries, photos = _wanted(calls), _wanted(queries), _wanted(photos)
        with _failing([*calls, *queries, *photos]):
            self._before()
            for call in calls:
                with _failing([call]):
                    call.future.set_result(call.function())
            for filters in dict.fromkeys(query.filters for query in queries):
                self._search_for([q for q in queries if q.filters == filters], filters)
            for start in range(0, len(photos), BATCH_SIZES[-1]):
                self._extract(photos[start : start + BATCH_SIZES[-1]])

    def _search_for(self, queries: list[_Query], filters: Filters) -> None:
        with _failing(queries):
            descriptors = np.stack([query.descriptor for query in queries])
            top = max(query.top for query in queries)
            found = self._search(descriptors, top, filters)
            for query, hits in zip(queries, found, strict=True):
                query.future.set_result(hits[: query.top])

    def _extract(self, photos: list[_Photo]) -> None:
        with _failing(photos):
            descriptors, sizes = self._embed([photo.pixels for photo in photos])
            for size in sizes:
                self._batched(size)
            for photo, descriptor in zip(photos, descriptors, strict=True):
                photo.future.set_result(descriptor)


def _taken(jobs: Any) -> Any:
    """Empties a list, to which other threads add; returns what it had."""
    taken = [*jobs]
    jobs.clear()
    return taken


def _wanted(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.future.set_running_or_notify_cancel()]


@contextlib.contextmanager
def _failing(jobs: Sequence[Any]) -> Iterator[None]:
    """An error is that of all jobs that have no result yet."""
    try:
        yield
    except Exception as error:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)
