"""What examples/mesh shows is accepted by the chart and by the programs that read it."""

from __future__ import annotations

from typing import Any

import yaml

from abbot.settings import parse_settings
from edgefarm import names
from edgefarm.api.edge_device import EdgeDevice
from reconciler.configuration import parse_configuration
from tests.chart.rendering import NAMESPACE, ROOT, kinds, objects, one

FOLDER = ROOT / "examples" / "mesh"


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    """As the API server would hand it out."""
    made = {"uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1"}
    return {**obj, "metadata": {**obj["metadata"], **made}}


def test_the_values_bring_agents_and_gateways() -> None:
    found = objects(yaml.safe_load((FOLDER / "values.yaml").read_text()))
    assert {("DaemonSet", "network-agent"), ("Deployment", "network-gateway")} <= kinds(found)
    data = one(found, "ConfigMap", names.CONFIGMAP)["data"]
    assert parse_configuration(data, NAMESPACE).mesh.enabled


def test_the_devices_are_ones() -> None:
    devices = [EdgeDevice.parse(stored(obj)) for obj in yaml.safe_load_all((FOLDER / "edgedevice.yaml").read_text())]
    assert [device.meta.name for device in devices] == ["edge-1", names.edge_device(names.ROLE_GATEWAY, "cloud-1")]


def test_abbot_reads_its_file() -> None:
    assert parse_settings((FOLDER / "abbot.yaml").read_text(), {}).forwarding
