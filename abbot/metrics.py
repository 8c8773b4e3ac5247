"""The daemon's Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_STATES: Final = ("alive", "dead")


class Metrics:
    """What is counted and measured; labels take few values, so peers are counted and not named."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "abbot_requests",
            "Requests by kind and result (done, invalid, failed, cancelled, crashed).",
            ("kind", "result"),
            registry=self._registry,
        )
        self._repairs = Counter(
            "abbot_repairs",
            "Looks for what somebody changed, by result (done, failed).",
            ("result",),
            registry=self._registry,
        )
        self._peers = Gauge(
            "abbot_peer_alive",
            "Peers by interface and state: alive, when a probe through the tunnel was answered lately, or dead.",
            ("interface", "state"),
            registry=self._registry,
        )
        self._changes = Counter(
            "abbot_path_changes",
            "How often a peer became alive or dead.",
            ("interface", "state"),
            registry=self._registry,
        )

    def request(self, kind: str, result: str) -> None:
        """Count one request."""
        self._requests.labels(kind, result).inc()

    def repair(self, *, failed: bool) -> None:
        """Count one periodic repair."""
        self._repairs.labels("failed" if failed else "done").inc()

    def peers(self, interface: str, *, alive: int, dead: int) -> None:
        """Say how many peers of an interface are alive."""
        self._peers.labels(interface, "alive").set(alive)
        self._peers.labels(interface, "dead").set(dead)

    def path_change(self, interface: str, *, alive: bool) -> None:
        """Count a peer that became alive or dead."""
        self._changes.labels(interface, "alive" if alive else "dead").inc()

    def forget(self, interface: str) -> None:
        """The interface is gone."""
        for state in _STATES:
            self._peers.remove_by_labels({"interface": interface, "state": state})

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
