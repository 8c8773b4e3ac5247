"""The agent's Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from edgefarm.agentbus import Status

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What is counted and measured."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgefarm_agent_requests", "Requests by what became of them.", ("status",), registry=self.registry
        )
        self.duration = Histogram(
            "edgefarm_agent_request_duration_seconds",
            "From a request to its answer, with the time that it waited for others.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.logins = Counter(
            "edgefarm_agent_logins", "Logins to Vault (ok, failed).", ("result",), registry=self.registry
        )
        self.connections = Counter(
            "edgefarm_agent_connections", "Logins to NATS (ok, failed).", ("result",), registry=self.registry
        )
        self.registered = Gauge(
            "edgefarm_agent_registered", "1 while the reconciler knows this agent.", registry=self.registry
        )
        for status in Status:
            self.requests.labels(status.value)

    def request(self, status: Status, seconds: float) -> None:
        """Count one request and its duration."""
        self.requests.labels(status.value).inc()
        self.duration.observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
