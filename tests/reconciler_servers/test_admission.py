"""Which configuration is accepted, remembered, and when it comes into force."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from edgefarm import names
from edgefarm.errors import InvalidResource
from reconciler.configuration import DATA_KEY, Configuration, parse_configuration
from reconciler.configuration_source import ConfigurationSource
from reconciler.desired.servers.admission import Facts, Verdict, judge, recall, recall_ready
from reconciler.desired.servers.authority import ca_configmap
from reconciler.metrics import Metrics
from reconciler.server_configuration import PodOptions, ServiceOptions
from tests.reconciler_servers.world import LOG

OUTSIDE: dict[str, Any] = {"vault": {"address": "https://vault.example:8200"}, "nats": {"urls": ["tls://hub:4222"]}}
INSIDE: dict[str, Any] = {"vault": {"deploy": True}, "nats": {"deploy": True}}
BOTH = frozenset({names.VAULT_SERVER, names.NATS_SERVER})


def parse(value: dict[str, Any]) -> Configuration:
    return parse_configuration(data(value), "hub")


def data(value: dict[str, Any]) -> dict[str, str]:
    return {DATA_KEY: yaml.safe_dump(value)}


def test_servers_that_are_deployed_are_found_by_the_names_of_their_services() -> None:
    configuration = parse(INSIDE)
    assert configuration.deployed == BOTH
    assert configuration.vault.server.address == "https://network-vault.hub.svc:8200"
    assert configuration.vault.client_address == configuration.vault.server.address
    assert configuration.nats.urls == configuration.nats.client_urls == ("tls://network-nats.hub.svc:4222",)
    assert configuration.nats.leaf_urls == ("tls://network-nats.hub.svc:7422",)
    elsewhere = parse({"vault": {"deploy": True, "clientAddress": "https://v:1"}, "nats": INSIDE["nats"]})
    assert elsewhere.vault.client_address == "https://v:1"
    vault, nats = configuration.deployment(names.VAULT_SERVER), configuration.deployment(names.NATS_SERVER)
    assert vault is not None
    assert nats is not None
    assert (vault.replicas, vault.storage_size, vault.extra_storage, vault.keep_data) == (1, "1Gi", "1Gi", True)
    assert (nats.image, nats.extra_storage) == (names.NATS_IMAGE, "256Mi")


def test_every_member_of_a_deployment_is_read() -> None:
    pod = {
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
    }
    members = {
        "image": "registry.example/openbao:1",
        "replicas": 3,
        "storage": {"size": "5Gi", "className": "fast"},
        "whenUninstalled": "Delete",
        "hosts": ["vault.example", "10.0.0.1"],
        "service": {"type": "LoadBalancer", "clusterIP": "10.1.0.1", "annotations": {"a": "b"}},
        "pod": pod,
        "auditStorage": "",
    }
    found = parse({"vault": {"deploy": True, **members}, "nats": OUTSIDE["nats"]}).vault.deployment
    assert found is not None
    assert (found.image, found.replicas, found.keep_data) == ("registry.example/openbao:1", 3, False)
    assert (found.storage_size, found.storage_class, found.extra_storage) == ("5Gi", "fast", "")
    assert found.hosts == ("vault.example", "10.0.0.1")
    assert found.service == ServiceOptions("LoadBalancer", "10.1.0.1", {"a": "b"})
    assert found.pod == PodOptions(
        resources=pod["resources"],  # type: ignore[arg-type]
        node_selector={"disk": "fast"},
        tolerations=({"key": "dedicated", "operator": "Exists"},),
        affinity={"nodeAffinity": {}},
        priority_class_name="high",
        image_pull_secrets=("registry",),
    )
    # The values of a chart hold them, whoever runs the server.
    assert parse({"vault": {**OUTSIDE["vault"], **members}, "nats": OUTSIDE["nats"]}).deployed == frozenset()


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ({"replicas": 2}, "vault.replicas"),
        ({"replicas": 5}, "vault.replicas"),
        ({"storage": {"size": "1Mi"}}, "vault.storage.size"),
        ({"storage": {"size": "much"}}, "vault.storage.size"),
        ({"storage": {"class": "fast"}}, "vault.storage.class"),
        ({"auditStorage": "1 GB"}, "vault.auditStorage"),
        ({"whenUninstalled": "Keep"}, "vault.whenUninstalled"),
        ({"hosts": ["a b"]}, "vault.hosts[0]"),
        ({"service": {"type": "ExternalName"}}, "vault.service.type"),
        ({"service": {"clusterIP": "not an address"}}, "vault.service.clusterIP"),
        ({"pod": {"tolerations": {}}}, "vault.pod.tolerations"),
        ({"pod": {"resources": []}}, "vault.pod.resources"),
        ({"pod": {"hostNetwork": True}}, "vault.pod.hostNetwork"),
        ({"memoryStorage": "1Gi"}, "vault.memoryStorage"),
        ({"address": "https://vault.example"}, "vault.address"),
        ({"namespace": "team"}, "vault.namespace"),
    ],
)
def test_what_is_wrong_about_a_deployment_is_named(member: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parse({**INSIDE, "vault": {"deploy": True, **member}})
    assert caught.value.field == field


def test_who_runs_a_server_can_change_only_while_there_is_no_network() -> None:
    outside, inside = parse(OUTSIDE), parse(INSIDE)
    assert judge(inside, outside, Facts()) == Verdict(inside)
    refused = judge(inside, outside, Facts(networks=("a", "b", "c", "d")))
    assert refused.accepted == outside
    assert "nats.deploy cannot be changed to true while Networks exist (a, b, c, …)" in refused.refusal
    assert "vault.deploy cannot be changed to true" in refused.refusal
    back = judge(outside, inside, Facts(networks=("a",)))
    assert back.accepted == inside
    assert "write true" in back.refusal


def test_what_was_in_force_is_known_after_a_restart() -> None:
    outside, inside = parse(OUTSIDE), parse(INSIDE)
    assert judge(outside, None, Facts(remembered=inside, networks=("a",))).accepted == inside
    # Where nothing was remembered, servers are known by what they leave behind.
    assert judge(inside, None, Facts(traces=BOTH, networks=("a",))) == Verdict(inside)
    assert judge(outside, None, Facts(networks=("a",))) == Verdict(outside)
    lost = judge(outside, None, Facts(traces=BOTH, networks=("a",)))
    assert lost.accepted is None
    assert lost.refusal
    # The first installation.
    assert judge(inside, None, Facts()) == Verdict(inside)


def test_the_accepted_configuration_is_remembered_in_the_configmap_of_authorities() -> None:
    configuration = parse(INSIDE)
    memory = {names.ANNOTATION_ACCEPTED: data(INSIDE)[DATA_KEY], names.ANNOTATION_READY_SERVERS: "network-nats"}
    written = ca_configmap(configuration, "hub", memory, [])
    assert recall(written, "hub") == configuration
    assert recall_ready(written) == {names.NATS_SERVER}
    # A kubelet waits with a pod for a key that is not there; an empty one would start it with nothing to trust.
    assert written["data"] == {}
    assert ca_configmap(configuration, "hub", {}, [], "an authority\n")["data"] == {"ca.crt": "an authority\n"}
    assert recall(None, "hub") is None
    assert recall_ready(None) == frozenset()
    wrong = ca_configmap(configuration, "hub", {names.ANNOTATION_ACCEPTED: "vault: 1"}, [])
    assert recall(wrong, "hub") is None


def test_a_configuration_comes_into_force_when_the_servers_in_it_are_ready() -> None:
    applied: list[Configuration] = []
    source = ConfigurationSource(Metrics(), log=LOG, namespace="hub")
    source.on_applied(applied.append)
    pem = "an authority\n"
    source.changed(None, {"data": data(INSIDE)})
    assert source.accepted == parse(INSIDE)
    source.report(names.VAULT_SERVER, authorities=pem, problem="")
    assert source.server_problems()[names.VAULT_SERVER] == ""
    assert "waiting for network-nats" in source.summary
    source.report(names.NATS_SERVER, authorities=pem, problem="it starts")
    assert not applied
    source.report(names.NATS_SERVER, authorities=pem, problem="")
    assert [each.vault.server.ca_pem for each in applied] == [pem]
    assert source.summary == "configured"
    # A server that fails takes nothing away, nor does a pass that failed before the authorities were known.
    source.report(names.NATS_SERVER, authorities="", problem="it is away")
    assert source.current == applied[0]
    assert source.summary == "waiting for network-nats: it is away"


def test_after_a_restart_a_configuration_whose_servers_were_ready_is_in_force_at_once() -> None:
    facts = Facts(remembered=parse(INSIDE), networks=("a",), ready=BOTH, authorities="an authority\n")
    source = ConfigurationSource(
        Metrics(), log=LOG, namespace="hub", judge=lambda wanted, accepted: judge(wanted, accepted, facts)
    )
    source.changed(None, {"data": data(INSIDE)})
    assert source.current == parse(INSIDE).trusting("an authority\n")


def test_a_process_that_takes_over_knows_what_became_ready_while_it_stood_by() -> None:
    facts = Facts(networks=("a",), traces=BOTH)
    source = ConfigurationSource(
        Metrics(), log=LOG, namespace="hub", judge=lambda wanted, accepted: judge(wanted, accepted, facts)
    )
    source.changed(None, {"data": data(INSIDE)})
    assert "waiting for network-nats" in source.summary
    facts = Facts(remembered=parse(INSIDE), networks=("a",), ready=BOTH, authorities="an authority\n")
    source.take_over()
    assert source.current == parse(INSIDE).trusting("an authority\n")
    # One that is refused meanwhile does not count either.
    source.changed(None, {"data": data(OUTSIDE)})
    source.take_over()
    assert source.accepted == parse(INSIDE)
    assert source.accepted_text == ""
    assert source.current == parse(INSIDE).trusting("an authority\n")


def test_nothing_is_accepted_before_the_cluster_was_read() -> None:
    facts = Facts(remembered=parse(INSIDE), networks=("a",))
    source = ConfigurationSource(
        Metrics(), log=LOG, namespace="hub", judge=lambda wanted, accepted: judge(wanted, accepted, facts)
    )
    source.hold()
    source.changed(None, {"data": data(OUTSIDE)})
    assert "waits for the cluster" in source.summary
    with capture_logs() as logs:
        source.look_again()
        source.look_again()
    assert [each["event"] for each in logs] == ["the configuration is refused"]
    assert source.accepted == parse(INSIDE)
    assert source.accepted_text == ""
    assert source.refusal in source.summary
    facts = Facts(remembered=parse(INSIDE))
    source.look_again()
    assert source.current == parse(OUTSIDE)
    assert source.accepted_text == data(OUTSIDE)[DATA_KEY]
