"""The reconciler's Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
ConfigurationState = Literal["waiting", "valid", "refused", "invalid"]
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What is counted and measured; labels take few values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "edgefarm_reconciles",
            "Passes by controller and result (success, waiting, refused, error, cancelled).",
            ("controller", "result"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "edgefarm_reconcile_duration_seconds",
            "How long a pass took.",
            ("controller",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.retries = Counter(
            "edgefarm_reconcile_retries", "Passes that will be repeated.", ("controller",), registry=self.registry
        )
        self._requests = Counter(
            "edgefarm_requests",
            "Requests that were sent to kubernetes, vault and nats.",
            ("system", "request", "kind"),
            registry=self.registry,
        )
        self._agents = Gauge("edgefarm_agents", "Agents that are connected now.", registry=self.registry)
        self._agent_requests = Counter(
            "edgefarm_agent_requests",
            "Requests to agents of edge hosts by result (done, failed, unsupported, timeout, too-large, busy, lost).",
            ("result",),
            registry=self.registry,
        )
        self._depth = Gauge("edgefarm_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self._leader = Gauge("edgefarm_leader", "1 while this replica holds the lease.", registry=self.registry)
        self._configuration = Gauge(
            "edgefarm_configuration_state",
            "1 for the state that the ConfigMap is in: waiting, valid, refused, or invalid.",
            ("state",),
            registry=self.registry,
        )

    def observe(self, *, depth: Callable[[], float], leading: Callable[[], bool]) -> None:
        """Where to read the queue's depth and the leadership at each scrape."""
        self._depth.set_function(depth)
        self._leader.set_function(lambda: float(leading()))

    def observe_agents(self, count: Callable[[], float]) -> None:
        """Where to read at each scrape how many agents are connected."""
        self._agents.set_function(count)

    def agent_request(self, result: str) -> None:
        """Count one request to an agent and what became of it; `lost`: no answer came."""
        self._agent_requests.labels(result).inc()

    def set_configuration(self, state: ConfigurationState) -> None:
        """Say what state the ConfigMap is in."""
        for each in get_args(ConfigurationState):
            self._configuration.labels(each).set(each == state)

    def kubernetes_request(self, verb: str, kind: str) -> None:
        """Count one request to the API server."""
        self._requests.labels("kubernetes", verb, kind).inc()

    def vault_request(self, kind: str, status: int | None) -> None:
        """Count one request to Vault and how it was answered; called from any thread."""
        self._requests.labels("vault", kind, "unanswered" if status is None else str(status)).inc()

    def nats_request(self, request: str) -> None:
        """Count one request to the hub's system account."""
        self._requests.labels("nats", request, "").inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
