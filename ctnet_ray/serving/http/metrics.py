"""What Prometheus reads, by version of the model.

With several replicas on a machine, PROMETHEUS_MULTIPROC_DIR (prometheus_client's own) names a folder that
they share: whichever answers gives the sum of all.
"""

import os
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_CANDIDATES = (1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
_VERSION = ("model", "version")


class ServingMetrics:
    """Counts of one process.

    Requests that no version answered (too large, no token, overloaded) have model and version "".
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ctnet_requests", "Answered requests, by HTTP status.", (*_VERSION, "status"), registry=registry
        )
        self._candidates = Histogram(
            "ctnet_candidates",
            "Candidates of a scored request.",
            _VERSION,
            buckets=_CANDIDATES,
            registry=registry,
        )
        self._seconds = Histogram(
            "ctnet_request_seconds",
            "From a whole body to its answer, waiting included.",
            _VERSION,
            buckets=_SECONDS,
            registry=registry,
        )
        self._waiting = Gauge(
            "ctnet_waiting_requests",
            "Requests that wait to be scored.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._swaps = Counter(
            "ctnet_model_loads",
            "Versions that were loaded to be swapped in, by outcome.",
            ("outcome",),
            registry=registry,
        )
        self._served = Gauge(
            "ctnet_served_version",
            "1: the version answers; 0: it did.",
            _VERSION,
            registry=registry,
            multiprocess_mode="livemax",
        )

    def count(self, model: str, version: str, status: int, candidates: int, seconds: float) -> None:
        """Count an answer.

        Args:
            model: Name of the model, "" where none answered.
            version: Its version.
            status: HTTP status.
            candidates: Number of them that were scored.
            seconds: From the whole body to the answer.
        """
        self._requests.labels(model, version, str(status)).inc()
        if candidates:
            self._candidates.labels(model, version).observe(candidates)
            self._seconds.labels(model, version).observe(seconds)

    def show_waiting(self, requests: int) -> None:
        """Show how many requests wait."""
        self._waiting.set(requests)

    def show_swap(self, old: tuple[str, str] | None, new: tuple[str, str]) -> None:
        """Show which version answers.

        Args:
            old: Model and version that answered before; None: none did.
            new: Those that answer now.
        """
        if old:
            self._served.labels(*old).set(0)
        self._served.labels(*new).set(1)
        self._swaps.labels("swapped").inc()

    def count_failed_load(self) -> None:
        """Count a version that could not be loaded."""
        self._swaps.labels("failed").inc()

    def text(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        registry = self._registry
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            with suppress(FileNotFoundError):
                MultiProcessCollector(registry)
        return generate_latest(registry)
