"""`edgefarm status`: what is unhealthy comes first, tables fit, the document is stable, and refusals are told."""

from __future__ import annotations

from collections.abc import Callable

import yaml

from edgefarm import names
from reconciler.ports import EDGE_DEVICE, EDGE_NETWORK, NETWORK, STREAM
from tests.cli.conftest import Cluster, Ended, ready

Run = Callable[..., Ended]


def _fill(cluster: Cluster) -> None:
    """A network with everything in it, all of it well."""
    cluster.network("plant", {"conditions": [ready()], "account": "A" * 56, "policies": 2, "grants": 3, "streams": 2})
    cluster.policy("sensor", allowpub=["sensor.>"])
    cluster.policy("viewer", accounts=("board", "default"), allowsub=["sensor.>"])
    nodes = [
        {"name": "edge-1", "domain": names.leaf_domain("plant", "edge-1"), "connected": True, "rtt": "12ms"},
        {"name": "edge-2", "domain": names.leaf_domain("plant", "edge-2"), "connected": False},
    ]
    away = ready("False", "NodesAway", "no leaf of edge-2 is connected to the hub", type="NodesConnected")
    cluster.make(
        EDGE_NETWORK, "halls", {"network": "plant", "nodeSelector": {}}, {"conditions": [ready(), away], "nodes": nodes}
    )
    places = [{"domain": "main", "state": "Present", "messages": 1234567, "bytes": 52428800, "lag": 7}]
    spec = {"network": "plant", "name": "READINGS", "location": "main", "subjects": ["sensor.>"]}
    cluster.make(
        STREAM, "readings", spec, {"conditions": [ready()], "network": "plant", "name": "READINGS", "locations": places}
    )
    device = {"conditions": [ready()], "role": "edge", "agentConnected": True, "mesh": {"ipv4": "10.201.0.17"}}
    cluster.make(EDGE_DEVICE, "edge-1", {}, {**device, "counts": {"relay": 1, "direct": 3, "none": 0}})


def test_a_healthy_installation_is_shown_in_tables_and_ends_with_0(cluster: Cluster, ask: Run) -> None:
    _fill(cluster)
    ended = ask("status", "-n", cluster.namespace)
    assert ended.status == 0, ended
    for line in (
        "Networks",
        f"Policies (of namespace {cluster.namespace})",
        "  plant  True   2         3       0      2",
        "sensor  plant    True   sensor",
        "viewer  plant    True   viewer, board +1",
        "halls  plant    True   1/2        NodesAway",
        "halls: no leaf of edge-2 is connected to the hub",
        "main   1,234,567  50.0 MiB  7",
        "edge-1  edge  True   connected  10.201.0.17  3 direct, 1 relay",
    ):
        assert line in ended.out


def test_nothing_is_wider_than_100_columns(cluster: Cluster, ask: Run) -> None:
    long = "n" * 50
    cluster.network(long, {"conditions": [ready("False", "VaultUnavailable", "Vault does not answer: " + "x" * 500)]})
    cluster.policy("p" * 60, long, ("a" * 60, "b" * 60))
    ended = ask("status", "-n", cluster.namespace)
    assert max(map(len, ended.out.splitlines())) <= 100
    assert "Vault does not answer" in ended.out
    assert "\x1b" not in ended.out


def test_the_unhealthy_come_first_with_their_reason_and_the_status_is_1(cluster: Cluster, ask: Run) -> None:
    cluster.network("able")
    cluster.network("broken", {"conditions": [ready("False", "NatsUnavailable", "no NATS server answered")]})
    ended = ask("status", "-n", cluster.namespace)
    lines = ended.out.splitlines()
    assert ended.status == 1
    assert lines[2].split() == ["broken", "False", "0", "0", "0", "0", "NatsUnavailable"]
    assert lines[3].split()[0] == "able"
    assert lines[4].strip() == "broken: no NATS server answered"


def test_an_object_that_nobody_has_looked_at_is_unhealthy(cluster: Cluster, ask: Run) -> None:
    cluster.make(NETWORK, "new", {"namespaces": []})
    ended = ask("status", "-n", cluster.namespace)
    assert ended.status == 1
    assert "new: nobody has looked at it yet: see that the reconciler runs and leads" in ended.out


def test_what_many_objects_suffer_from_is_said_once(cluster: Cluster, ask: Run) -> None:
    for number in range(7):
        cluster.make(
            NETWORK, f"n{number}", {"namespaces": []}, {"conditions": [ready("False", "X", "Vault is sealed")]}
        )
    ended = ask("status", "-n", cluster.namespace)
    assert "  n0, n1, n2, n3, n4 and 2 more: Vault is sealed\n" in ended.out
    assert ended.out.count("Vault is sealed") == 1


def test_a_device_that_shall_be_out_of_the_mesh_is_not_unhealthy(cluster: Cluster, ask: Run) -> None:
    cluster.make(EDGE_DEVICE, "spare", {}, {"conditions": [ready("False", "Disabled", "it is not in the mesh")]})
    ended = ask("status", "-n", cluster.namespace)
    assert ended.status == 0
    assert "Disabled" in ended.out


def test_the_document_has_every_kind_whatever_is_there(cluster: Cluster, ask: Run) -> None:
    _fill(cluster)
    document = ask("status", "-n", cluster.namespace, "-o", "json").document
    assert list(document) == [
        "healthy",
        "networks",
        "policies",
        "edgeNetworks",
        "streams",
        "edgeDevices",
        "problems",
        "notes",
    ]
    assert document["healthy"] is True
    assert document["networks"] == [
        {
            "namespace": cluster.controller,
            "name": "plant",
            "health": "good",
            "ready": "True",
            "reason": "Reconciled",
            "message": "all is well",
            "account": "A" * 56,
            "policies": 2,
            "grants": 3,
            "edgeNodes": 0,
            "streams": 2,
        }
    ]
    assert document["edgeNetworks"][0]["health"] == "doubtful"
    assert document["edgeNetworks"][0]["nodes"][1] == {
        "name": "edge-2",
        "domain": "plant-edge-2",
        "connected": False,
    }
    assert document["streams"][0]["locations"][0]["messages"] == 1234567
    as_yaml = yaml.safe_load(ask("status", "-n", cluster.namespace, "-o", "yaml").out)
    assert as_yaml == document


def test_one_network_is_shown_alone(cluster: Cluster, ask: Run) -> None:
    _fill(cluster)
    cluster.network("other", {"conditions": [ready("False", "InvalidSpec", "spec.limits is wrong")]})
    document = ask("status", "plant", "-n", cluster.namespace, "-o", "json").document
    assert [item["name"] for item in document["networks"]] == ["plant"]
    assert "edgeDevices" not in document
    assert document["healthy"] is True


def test_a_network_that_does_not_exist_is_a_problem(cluster: Cluster, ask: Run) -> None:
    ended = ask("status", "plannt", "-n", cluster.namespace)
    assert ended.status == 1
    assert "there is no network 'plannt'" in ended.out


def test_a_namespace_without_networks_is_named(cluster: Cluster, ask: Run) -> None:
    ended = ask("status", "-n", cluster.namespace)
    assert ended.status == 0
    assert f"Networks (of namespace {cluster.controller}: --controller-namespace names another)\n  none" in ended.out


def test_without_a_namespace_all_are_looked_at(cluster: Cluster, ask: Run) -> None:
    cluster.policy("sensor", "lonely")
    document = ask("status", "lonely", "-o", "json").document
    assert [item["namespace"] for item in document["policies"]] == [cluster.namespace]
