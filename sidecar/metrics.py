"""The figures of the sidecar in Prometheus' text format. Pure.

See https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

ROUTES: Final = ("leaf", "hub")


@dataclass(frozen=True)
class Figures:
    """What is shown; `expires_at` is Unix seconds, None without credentials."""

    version: str
    mode: str
    network: str
    renewals: int
    failures: Mapping[str, int]
    expires_at: int | None
    ready: bool
    daprd_restarts: int
    #: None before it is chosen, and where the sidecar offers credentials only.
    route: str | None = None
    route_changes: int = 0


def render(figures: Figures) -> str:
    """The page."""
    labels = {"version": figures.version, "mode": figures.mode, "network": figures.network}
    lines = family("info", "gauge", "What runs here.", [(labels, 1)])
    lines += family("ready", "gauge", "1 when the pod has working credentials.", [({}, int(figures.ready))])
    lines += family("renewals_total", "counter", "Credentials issued since the start.", [({}, figures.renewals)])
    lines += family(
        "failures_total",
        "counter",
        "Failed steps by kind.",
        [({"kind": kind}, count) for kind, count in sorted(figures.failures.items())],
    )
    if figures.expires_at is not None:
        lines += family(
            "credentials_expiry_timestamp_seconds", "gauge", "When the credentials end.", [({}, figures.expires_at)]
        )
    lines += family("daprd_restarts_total", "counter", "Times daprd was started again.", [({}, figures.daprd_restarts)])
    if figures.route is not None:
        routes = [({"route": name}, int(name == figures.route)) for name in ROUTES]
        lines += family("route", "gauge", "1 for the way that the pod's traffic takes.", routes)
        lines += family("route_changes_total", "counter", "Times the route changed.", [({}, figures.route_changes)])
    return "\n".join(lines) + "\n"


def family(name: str, kind: str, text: str, samples: Sequence[tuple[Mapping[str, str], int]]) -> list[str]:
    """The lines of one metric; each sample has labels and a value."""
    full = f"edgefarm_sidecar_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} {kind}"] + [
        f"{full}{_labels(labels)} {value}" for labels, value in samples
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    # Values are DNS labels and words of our own: nothing to escape.
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
