"""Rights and network policies follow the values, and name what the programs name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgefarm import names
from reconciler import ports
from reconciler.desired.servers import nats as nats_server
from reconciler.desired.servers import vault as vault_server
from reconciler.desired.servers.workload import Port
from reconciler.ports import Kind
from tests.chart.rendering import NAMES, NAMESPACE, Json, objects, one, pods, values_of

Right = tuple[str, str, str]
SERVERS = {names.VAULT_SERVER, names.NATS_SERVER}


def rights(found: list[Json]) -> set[Right]:
    """(group, resource, verb) of the reconciler, wherever it has them."""
    rules = [rule for kind in ("ClusterRole", "Role") for rule in one(found, kind, "network-controller")["rules"]]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def of(kind: Kind, *verbs: str) -> set[Right]:
    return {(kind.group, kind.plural, verb) for verb in verbs}


def kinds_of_ports() -> Iterator[Kind]:
    yield from (value for value in vars(ports).values() if isinstance(value, Kind))


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_that_is_always_followed_may_be_listed_and_watched(name: str) -> None:
    granted = rights(objects(values_of(name)))
    unfollowed = {ports.TOKEN_REVIEW, ports.EVENT, ports.LEASE}
    for kind in set(kinds_of_ports()) - unfollowed:
        assert kind.optional or of(kind, "list", "watch") <= granted, kind


@pytest.mark.parametrize(
    ("values", "granted"),
    [
        ({"mesh": {"enabled": True}}, of(ports.TOKEN_REVIEW, "create") | of(ports.SERVICE_CIDR, "list", "watch")),
        ({"mesh": {"enabled": True}}, of(ports.EDGE_DEVICE, "create") | of(ports.POD, "get")),
        ({"streams": {"driver": "nack"}}, of(ports.NACK_STREAM, "create") | of(ports.NACK_ACCOUNT, "patch")),
        ({"webhook": {"certManager": {"enabled": False}}}, of(ports.MUTATING_WEBHOOK, "patch")),
        ({"nats": {"deploy": True}}, of(ports.STATEFUL_SET, "create") | of(ports.POD_DISRUPTION_BUDGET, "patch")),
        ({"vault": {"deploy": True}}, of(ports.STATEFUL_SET, "create") | of(ports.POD, "delete")),
    ],
)
def test_rights_come_with_what_needs_them(values: Json, granted: set[Right]) -> None:
    without = values_of("external") | {"webhook": {"certManager": {"enabled": True}}}
    given = {**without, **{key: {**without.get(key, {}), **value} for key, value in values.items()}}
    for server in ("vault", "nats"):
        if given[server]["deploy"]:
            given[server] = {"deploy": True}
    assert granted <= rights(objects(given))
    assert not granted & rights(objects(without))


@pytest.mark.parametrize("name", NAMES)
def test_rights_to_single_objects_name_ours(name: str) -> None:
    known = {names.SERVERS_CA, names.ELECTION_LEASE, names.WEBHOOK_CONFIGURATION, *SERVERS}
    known |= {names.server_replica(names.VAULT_SERVER, ordinal) for ordinal in range(3)}
    found = objects(values_of(name))
    for kind in ("ClusterRole", "Role"):
        for rule in one(found, kind, "network-controller")["rules"]:
            assert set(rule.get("resourceNames", ())) <= known
            assert not rule.get("resourceNames") or "create" not in rule["verbs"]


def test_openbao_may_ask_for_token_reviews_only_where_it_is_run() -> None:
    binding = one(objects(), "ClusterRoleBinding", names.VAULT_SERVER)
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": names.VAULT_SERVER, "namespace": NAMESPACE}]
    external = {obj["metadata"]["name"] for obj in objects(values_of("external"))}
    assert names.VAULT_SERVER not in external


def test_every_component_in_the_pod_network_has_a_policy() -> None:
    found = objects({"networkPolicies": {"enabled": True}})
    policies = [obj for obj in found if obj["kind"] == "NetworkPolicy"]
    selected = [obj["spec"]["podSelector"]["matchLabels"] for obj in policies]
    for pod in pods(found).values():
        assert any(labels.items() <= pod["metadata"]["labels"].items() for labels in selected)
    assert [labels[names.LABEL_SERVER] for labels in selected if names.LABEL_SERVER in labels] == sorted(SERVERS)
    assert all(obj["spec"]["policyTypes"] == ["Ingress", "Egress"] for obj in policies)


@pytest.mark.parametrize(
    ("server", "ports_of"), [(names.VAULT_SERVER, vault_server.PORTS), (names.NATS_SERVER, nats_server.PORTS)]
)
def test_policies_of_servers_open_the_ports_that_they_have(server: str, ports_of: tuple[Port, ...]) -> None:
    ingress = one(objects({"networkPolicies": {"enabled": True}}), "NetworkPolicy", server)["spec"]["ingress"]
    opened = {port["port"] for rule in ingress for port in rule["ports"]}
    assert opened == {port.number for port in ports_of}


def test_the_reconciler_may_reach_servers_of_others_by_their_ports() -> None:
    policy = one(objects(values_of("everything")), "NetworkPolicy", "network-controller")
    anywhere = [{port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"] if "to" not in rule]
    assert anywhere == [{53}, {443, 6443}, {443, 4223}]


def test_the_webhook_may_reach_nobody() -> None:
    assert one(objects(values_of("everything")), "NetworkPolicy", "network-webhook")["spec"]["egress"] == []
