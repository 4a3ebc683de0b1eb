"""A service's parts, and what its requests have in common."""

import asyncio
import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tokret.data.views import Box
from tokret.errors import UserError
from tokret.runtime.signals import report
from tokret.search.extractor import Extractor
from tokret.search.searcher import Searcher
from tokret.search.service.bounded_cache import BoundedCache
from tokret.search.service.decoder import Decoder
from tokret.search.service.device import Device
from tokret.search.service.guard import Access
from tokret.search.service.limits import Limits
from tokret.search.service.metrics import Metrics
from tokret.search.service.problems import Problem
from tokret.search.service.programs import Programs
from tokret.shapes import Float

REFRESH_SECONDS = 1.0  # between two looks at whether the index has changed


class Upload(NamedTuple):
    """A photo that was uploaded to search with."""

    content: bytes
    width: int  # upright, in pixels
    height: int


class Loaded:
    """An index that is open, its programs and the thread that runs them."""

    def __init__(
        self,
        index: Path,
        searcher: Searcher,
        limits: Limits,
        metrics: Metrics,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Compiles the programs; `log` is called with the progress."""
        self.index, self.searcher, self._log = index, searcher, log
        self._closed, self._refreshed = False, time.monotonic()
        self._limits = limits
        self._compiling: list[threading.Thread] = []
        with ThreadPoolExecutor(1) as pool:
            search = pool.submit(searcher.warm_up)
            self._use_model()
            search.result()
        self.device = Device(
            lambda photos: self._programs.embed(photos),
            searcher.search,
            limits.batch_wait,
            self._refresh,
            metrics.batches.observe,
        )

    def _use_model(self) -> None:
        """Compiles the programs of one photo; those of batches in the background."""
        extractor = self.searcher.extractor
        # If it fails, the next turn tries again.
        self._programs = Programs(extractor.system, self._log, self._limits.batch)
        self.extractor = extractor
        self.descriptors: BoundedCache[tuple[str, Box | None], np.ndarray]
        self.descriptors = BoundedCache(self._limits.descriptors, 2**62)
        programs = self._programs
        thread = threading.Thread(
            target=programs.compile_batches,
            args=(lambda: self._closed or self._programs is not programs,),
            name="compiling",
            daemon=True,
        )
        self._compiling = [*filter(threading.Thread.is_alive, self._compiling), thread]
        thread.start()

    def _refresh(self) -> None:
        """Notices what another process has changed, also the model."""
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            try:
                self.searcher.refresh()
            except UserError as error:  # it searches what it has read before
                report(f"the index was changed and cannot be read: {error}")
        if self.searcher.extractor is not self.extractor:
            self._use_model()

    def close(self, seconds: float) -> None:
        """Ends the threads; jobs that are running have some seconds."""
        self._closed = True
        self.device.stop(seconds)
        for thread in self._compiling:
            thread.join()  # Python's end would crash in a compilation

    def indexing_extractor(self) -> Extractor:
        """The model with these programs, which adds photos one by one."""
        system = self.extractor.system
        settings = dataclasses.replace(system.settings, batch_size=1)
        embed: Any = self._programs.embed_batch  # on the host, in NumPy
        alone = dataclasses.replace(system, embed=embed, settings=settings)
        return dataclasses.replace(self.extractor, system=alone)

    def attention_maps(self, view: Any) -> Float[np.ndarray, "l h w"] | None:
        """The maps of a view; None if the model has none. Called by the device."""
        found = self.extractor.system.token_maps([view])
        return None if found is None else found[0]


class Service:
    """What is shared by the requests of an application; used in its event loop."""

    def __init__(self, limits: Limits, access: Access, read_only: bool = False) -> None:
        """Starts without an index: `loaded` is set once it is open."""
        self.limits, self.access, self.read_only = limits, access, read_only
        self.name = secrets.token_hex(8)
        self.stopping = False
        self.metrics = Metrics()
        self.decoder = Decoder(
            limits, lambda why: self.metrics.failures.labels(why).inc()
        )
        self.uploads: BoundedCache[str, Upload]
        self.uploads = BoundedCache(limits.uploads, limits.upload_bytes)
        self.pictures: BoundedCache[tuple[str, int], bytes]
        self.pictures = BoundedCache(100_000, limits.picture_bytes)
        self.sizes: BoundedCache[str, tuple[int, int]]
        self.sizes = BoundedCache(limits.sizes, 2**62)
        self.tasks: set[asyncio.Task[None]] = set()  # that no request waits for
        self.adding = asyncio.Lock()
        self._loaded: Loaded | None = None
        self._requests, self._bytes = 0, 0
        self._measure()

    def _measure(self) -> None:
        gauge = self.metrics.gauge
        gauge("requests_in_progress", "Searches and additions.", lambda: self._requests)
        gauge("queue_length", "Photos and searches that wait.", self._waiting)
        gauge("photos", "Photos that are searched.", self._photos)
        gauge("kept_uploads", "Uploaded photos in memory.", lambda: len(self.uploads))
        gauge("kept_bytes", "Of uploads and pictures in memory.", self._kept_bytes)

    def _waiting(self) -> int:
        return self._loaded.device.waiting() if self._loaded else 0

    def _photos(self) -> int:
        return self._loaded.searcher.num_photos if self._loaded else 0

    def _kept_bytes(self) -> int:
        return self.uploads.bytes + self.pictures.bytes

    @property
    def status(self) -> Literal["ready", "loading", "stopping"]:
        """Whether requests are answered."""
        if self.stopping:
            return "stopping"
        return "ready" if self._loaded else "loading"

    @property
    def loaded(self) -> Loaded:
        """The open index.

        Raises:
          Problem: if it is still being loaded.
        """
        if self._loaded is None:
            raise Problem(503, f"the service is {self.status}", retry_after=2)
        return self._loaded

    def open(self, loaded: Loaded) -> None:
        """Answers requests from now on, with an index."""
        self._loaded = loaded

    def close(self) -> None:
        """Ends the device's thread, when no request is left."""
        if self._loaded:
            self._loaded.close(float(self.limits.stop_seconds))

    @property
    def searcher(self) -> Searcher:
        """The open index's searcher; a Problem as of `loaded`."""
        return self.loaded.searcher

    @property
    def root(self) -> Path:
        """The folder of the index's photos."""
        return self.searcher.root

    def require_loaded(self) -> None:
        """Raises a Problem if the index is still being loaded."""
        _ = self.loaded

    @contextlib.contextmanager
    def admitted(self) -> Iterator[Callable[[int], None]]:
        """A request that is worked on; yields what counts its bytes.

        Raises:
          Problem: 429 if there are too many requests or bytes.
        """
        limits, mine = self.limits, 0
        if self._requests >= limits.requests:
            raise Problem(429, "too many requests at once; try again", retry_after=1)

        def count_bytes(number: int) -> None:
            nonlocal mine
            if self._bytes + number > limits.bytes_in_progress:
                raise Problem(429, "too many uploads at once; try again", retry_after=1)
            mine += number
            self._bytes += number

        self._requests += 1
        try:
            yield count_bytes
        finally:
            self._requests -= 1
            self._bytes -= mine
