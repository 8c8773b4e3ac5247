"""The figures of a leaf's sidecar in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.metrics import family


@dataclass(frozen=True)
class LeafFigures:
    """What is shown. `expires_at` is Unix seconds (None: no credentials), `overdue` in seconds; `uplinks` says of each
    of the two connections whether it is up."""

    version: str
    network: str
    domain: str
    ready: bool
    renewals: int
    failures: Mapping[str, int]
    expires_at: int | None
    overdue: int
    uplinks: Mapping[str, bool]
    current: bool
    reloads: int
    restarts: int
    written: bool


def render(figures: LeafFigures) -> str:
    """The page."""
    labels = {"version": figures.version, "mode": "leaf", "network": figures.network, "domain": figures.domain}
    failures = [({"kind": kind}, count) for kind, count in sorted(figures.failures.items())]
    uplinks = [({"account": account}, int(up)) for account, up in sorted(figures.uplinks.items())]
    lines = family("info", "gauge", "What runs here.", [(labels, 1)])
    lines += family("ready", "gauge", "1 when nats-server has a configuration.", [({}, int(figures.ready))])
    lines += family("renewals_total", "counter", "Credentials issued since the start.", [({}, figures.renewals)])
    lines += family("failures_total", "counter", "Failed steps by kind.", failures)
    if figures.expires_at is not None:
        lines += family(
            "credentials_expiry_timestamp_seconds", "gauge", "When the credentials end.", [({}, figures.expires_at)]
        )
    lines += family(
        "renewal_overdue_seconds",
        "gauge",
        "For how long a renewal has been due without success.",
        [({}, figures.overdue)],
    )
    lines += family("leaf_uplink", "gauge", "1 when the connection to the hub is up, by account.", uplinks)
    lines += family(
        "leaf_configuration_current", "gauge", "1 when nats-server runs what it should.", [({}, int(figures.current))]
    )
    lines += family(
        "leaf_configuration_reloads_total", "counter", "Changed configurations reloaded.", [({}, figures.reloads)]
    )
    lines += family(
        "leaf_restarts_total", "counter", "Times nats-server had to be restarted.", [({}, figures.restarts)]
    )
    lines += family(
        "leaf_storage_written", "gauge", "0 when JetStream no longer writes to a stream.", [({}, int(figures.written))]
    )
    return "\n".join(lines) + "\n"
