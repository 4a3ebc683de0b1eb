"""Measurements of a service, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import Response

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters, histograms and gauges of one service."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tokret_requests_total",
            "Answered requests.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tokret_request_seconds",
            "Time from a request's head to its answer's end.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            "tokret_batch_photos",
            "Photos that were embedded together.",
            buckets=(1, 2, 3, 4, 6, 8),
            registry=registry,
        )
        self.failures = Counter(
            "tokret_decode_failures_total",
            "Photos that were not decoded.",
            ["reason"],
            registry=registry,
        )
        # process_resident_memory_bytes, process_open_fds, process_cpu_seconds_total
        ProcessCollector(registry=registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Adds a number that is read for each answer."""
        gauge = Gauge(f"tokret_{name}", text, registry=self._registry)
        gauge.set_function(read)

    def response(self) -> Response:
        """All of them."""
        return Response(
            generate_latest(self._registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )
