"""What examples/mesh shows is accepted, by the API server and by the programs that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from abbot.settings import parse_settings
from agent.settings import parse_file
from edgefarm import names
from edgefarm.api.edge_device import EdgeDevice
from tests.apiserver.rest import Rest

FOLDER = Path(__file__).parents[2] / "examples" / "mesh"
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
}


def objects(name: str) -> list[dict[str, Any]]:
    return [obj for obj in yaml.safe_load_all((FOLDER / name).read_text()) if obj]


@pytest.mark.parametrize("file", ["agent.yaml", "gateway.yaml"])
def test_an_api_server_takes_the_workloads(rest: Rest, namespace: str, file: str) -> None:
    for obj in objects(file):
        assert obj["metadata"]["namespace"] == names.CONTROLLER_NAMESPACE
        obj["metadata"]["namespace"] = namespace
        made = rest.create(COLLECTIONS[obj["kind"]].format(namespace), obj)
        assert made["metadata"]["name"] == obj["metadata"]["name"]


def test_the_devices_are_ones() -> None:
    found = objects("edgedevice.yaml")
    devices = [
        EdgeDevice.parse(
            {
                **obj,
                "metadata": {
                    **obj["metadata"],
                    "uid": "1",
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "resourceVersion": "1",
                },
            }
        )
        for obj in found
    ]
    assert [device.meta.name for device in devices] == ["edge-1", names.edge_device(names.ROLE_GATEWAY, "cloud-1")]


def test_agents_and_abbots_read_their_files() -> None:
    files = {
        key: text
        for name in ("agent.yaml", "gateway.yaml")
        for obj in objects(name)
        if obj["kind"] == "ConfigMap"
        for key, text in obj["data"].items()
    }
    files["host"] = (FOLDER / "abbot.yaml").read_text()
    assert parse_file(files["agent.yaml"]).enabled
    for name in ("abbot.yaml", "host"):
        assert parse_settings(files[name], {}).forwarding
