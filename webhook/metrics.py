"""The webhook's Prometheus metrics."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

#: A pod waits for us: what matters is a few milliseconds; the API server gives up after seconds.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """Own registry, so that several may live in one process (tests)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._admissions = Counter(
            "edgefarm_webhook_admissions",
            "Answered admission requests by outcome (inject, skip, deny, refused) and reason",
            ("outcome", "reason"),
            registry=self._registry,
        )
        #: Finding a counter by its labels takes longer than counting.
        self._counters: dict[tuple[str, str], Counter] = {}
        self._seconds = Histogram(
            "edgefarm_webhook_request_seconds",
            "Time to the decision about a complete request",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._certificate = Gauge(
            "edgefarm_webhook_certificate_not_after_timestamp_seconds",
            "When the served certificate ends (Unix time)",
            registry=self._registry,
        )

    def admitted(self, outcome: str, reason: str, seconds: float | None = None) -> None:
        """Count one answered request; `seconds` is how long the decision took, if there was one."""
        counter = self._counters.get((outcome, reason))
        if counter is None:
            counter = self._counters[outcome, reason] = self._admissions.labels(outcome, reason)
        counter.inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def certificate_ends(self, when: datetime) -> None:
        """Remember when the served certificate ends."""
        self._certificate.set(when.timestamp())

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)
