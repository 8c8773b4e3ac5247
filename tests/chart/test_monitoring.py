"""Alerts, dashboard and monitors: of metrics and ports that exist."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import Metrics as AgentMetrics
from reconciler.metrics import Metrics as ReconcilerMetrics
from sidecar.metrics import Figures, render
from tests.chart.rendering import Json, dashboard, metrics_in, objects, one, pods, values_of
from webhook.metrics import Metrics as WebhookMetrics
from webhook.template import HEALTH_PORT_NAME


def exposed() -> set[str]:
    """Names of all samples that the programs show, also of families that have none yet."""
    figures = Figures("0", "dapr", "plant", 1, {"login": 1}, 1, True, 0, route="hub")
    pages: Iterable[str] = (
        ReconcilerMetrics().render().decode(),
        WebhookMetrics().render().decode(),
        AgentMetrics().render().decode(),
        render(figures),
    )
    found = set()
    for page in pages:
        for family in text_string_to_metric_families(page):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            found |= {f"{family.name}{suffix}" for suffix in suffixes}
    return found


@pytest.fixture(scope="module")
def rendered() -> list[Json]:
    return objects(values_of("everything"))


def alerts(found: list[Json]) -> list[Json]:
    return [rule for group in one(found, "PrometheusRule", "network")["spec"]["groups"] for rule in group["rules"]]


def test_alerts_ask_for_metrics_that_exist(rendered: list[Json]) -> None:
    for alert in alerts(rendered):
        asked = metrics_in(alert["expr"])
        assert asked
        assert asked <= exposed(), alert["alert"]


def test_the_dashboard_asks_for_metrics_that_exist(rendered: list[Json]) -> None:
    data = one(rendered, "ConfigMap", "network-dashboard")["data"]
    assert json.loads(data["edgefarm-network.json"]) == dashboard()
    asked = metrics_in(json.dumps(dashboard()))
    assert len(asked) > 15
    assert asked <= exposed()


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["type"] == "row" or panel["description"].endswith(".")


def test_every_alert_says_what_it_means_and_what_to_read(rendered: list[Json]) -> None:
    found = alerts(rendered)
    assert len({alert["alert"] for alert in found}) == len(found)
    for alert in found:
        notes = alert["annotations"]
        assert notes["summary"].endswith(".")
        assert notes["description"].endswith(".")
        assert notes["runbook_url"].endswith(f"docs/runbooks.md#{alert['alert'].lower()}")
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_alerts_of_the_mesh_come_with_it() -> None:
    values = {"monitoring": {"rules": {"enabled": True}}}
    assert not any("agent" in alert["expr"] for alert in alerts(objects(values)))
    assert any("agent" in alert["expr"] for alert in alerts(objects({**values, "mesh": {"enabled": True}})))


def test_monitors_select_ports_that_the_pods_have(rendered: list[Json]) -> None:
    for name in ("controller", "webhook"):
        spec = one(rendered, "PodMonitor", f"network-{name}")["spec"]
        pod = pods(rendered)[f"network-{name}"]
        assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports
    sidecars = one(rendered, "PodMonitor", "network-sidecars")["spec"]
    assert sidecars["podMetricsEndpoints"][0]["port"] == HEALTH_PORT_NAME
    assert sidecars["namespaceSelector"] == {"any": True}
