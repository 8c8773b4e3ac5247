"""What the programs get from the chart is what they know: configuration, environment, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from abbot.settings import parse_settings
from agent.settings import parse_file
from edgefarm import names
from reconciler.configuration import parse_configuration
from tests.chart.rendering import (
    NAMES,
    NAMESPACE,
    ROOT,
    configuration,
    environment,
    kinds,
    objects,
    one,
    pods,
    values_of,
)
from webhook.settings import VARIABLES, Settings

#: Program -> where its source reads the environment.
SOURCES = {"reconciler": "reconciler/settings.py", "webhook": "webhook/settings.py", "agent": "agent/settings.py"}


def data_of(name: str) -> dict[str, str]:
    data: dict[str, str] = one(objects(values_of(name)), "ConfigMap", names.CONFIGMAP)["data"]
    return data


@pytest.mark.parametrize("name", NAMES)
def test_the_reconciler_accepts_the_configuration(name: str) -> None:
    parse_configuration(data_of(name), NAMESPACE)


def test_defaults_of_the_chart_are_those_of_the_reconciler() -> None:
    least = {"vault": {"deploy": True}, "nats": {"deploy": True}, "leaf": configuration(objects())["leaf"]}
    wanted = parse_configuration({"config.yaml": yaml.safe_dump(least)}, NAMESPACE)
    assert parse_configuration(data_of("in-cluster"), NAMESPACE) == wanted


def test_images_of_servers_are_those_that_the_reconciler_knows() -> None:
    found = configuration(objects())
    assert found["vault"]["image"] == names.OPENBAO_IMAGE
    assert found["nats"]["image"] == found["leaf"]["natsImage"] == names.NATS_IMAGE


def test_what_only_goes_with_deploy_is_left_out_without() -> None:
    found = configuration(objects(values_of("external")))
    assert set(found["nats"]) == {"deploy", "urls"}
    assert set(found["vault"]) == {"deploy", "address", "authMount", "transitMount", "kvMount", "audience"}


def test_no_audit_log_is_said_and_not_left_out() -> None:
    assert configuration(objects({"vault": {"auditStorage": ""}}))["vault"]["auditStorage"] == ""


def test_servers_are_pulled_with_the_secrets_of_the_release_unless_they_have_their_own() -> None:
    values = {"imagePullSecrets": [{"name": "a"}], "nats": {"pod": {"imagePullSecrets": [{"name": "b"}]}}}
    found = configuration(objects(values))
    assert found["vault"]["pod"]["imagePullSecrets"] == [{"name": "a"}]
    assert found["nats"]["pod"]["imagePullSecrets"] == [{"name": "b"}]
    assert found["leaf"]["imagePullSecrets"] == [{"name": "a"}]


def test_images_have_registry_tag_and_digest() -> None:
    found = objects(values_of("everything"))
    digest = values_of("everything")["sidecar"]["image"]["digest"]
    webhook = pods(found)["network-webhook"]["spec"]["containers"][0]
    assert webhook["image"] == "mirror.example/edgefarm/network-control:v1"
    assert environment(webhook)["EDGEFARM_SIDECAR_IMAGE"] == f"mirror.example/edgefarm/network-sidecar:v2@{digest}"
    assert configuration(found)["leaf"]["sidecarImage"] == f"mirror.example/edgefarm/network-sidecar:v2@{digest}"


@pytest.mark.parametrize("name", NAMES)
def test_programs_know_every_variable_that_they_get(name: str) -> None:
    for pod in pods(objects(values_of(name))).values():
        for container in pod["spec"]["containers"]:
            program = container["command"][2]
            if program == "abbot":
                assert "env" not in container
                continue
            variables = list(environment(container))
            assert len(set(variables)) == len(variables)
            assert set(variables) <= known(program), program


def test_more_environment_replaces_what_the_chart_says() -> None:
    extra = [{"name": "EDGEFARM_WORKERS", "value": "2"}, {"name": "EDGEFARM_LEASE_DURATION", "value": "30s"}]
    (container,) = pods(objects({"controller": {"extraEnv": extra}}))["network-controller"]["spec"]["containers"]
    assert [entry for entry in container["env"] if entry["name"] == "EDGEFARM_WORKERS"] == [extra[0]]
    assert container["env"][-1] == extra[1]


def known(program: str) -> set[str]:
    found = set(re.findall(r'"(EDGEFARM_[A-Z_]+)"', (ROOT / SOURCES[program]).read_text()))
    assert program != "webhook" or {name for name, _, _ in VARIABLES} <= found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_webhook_starts_with_its_environment(name: str, work: Path, authority: Any) -> None:
    (container,) = pods(objects(values_of(name)))["network-webhook"]["spec"]["containers"]
    variables = {key: value if isinstance(value, str) else "127.0.0.1" for key, value in environment(container).items()}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    if "EDGEFARM_CA_FILE" in variables:
        assert str(Path(variables["EDGEFARM_CA_FILE"]).parent) in mounts
        (work / "ca.crt").write_text(authority.pem)
        variables["EDGEFARM_CA_FILE"] = str(work / "ca.crt")
    settings = Settings.read(variables)
    assert str(settings.certificates) in mounts
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "admission": settings.port,
        "health": settings.health_port,
    }


def test_addresses_of_servers_follow_from_what_is_given() -> None:
    def where(name: str) -> tuple[str, str]:
        found = environment(pods(objects(values_of(name)))["network-webhook"]["spec"]["containers"][0])
        return found["EDGEFARM_VAULT_ADDR"], found["EDGEFARM_NATS_URL"]

    assert where("external") == ("https://vault.example:8200", "tls://nats.example:4222")
    assert where("in-cluster") == ("https://network-vault.network.svc:8200", "tls://network-nats.network.svc:4222")
    assert where("everything") == (
        "https://vault.outside.example:8200",
        "tls://nats.example:4222,tls://nats.example:4223",
    )


def test_authorities_are_mounted_only_where_there_are_some() -> None:
    def mounts(name: str) -> bool:
        return names.SERVERS_CA in json.dumps(pods(objects(values_of(name))))

    assert mounts("in-cluster")
    assert mounts("everything")
    assert not mounts("external")


def test_the_reconciler_shows_vault_a_token_for_its_audience() -> None:
    values = {**values_of("external"), "vault": {**values_of("external")["vault"], "audience": "keys"}}
    found = objects(values)
    (volume,) = pods(found)["network-controller"]["spec"]["volumes"]
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "keys"
    assert configuration(found)["vault"]["audience"] == "keys"
    webhook = pods(found)["network-webhook"]["spec"]["containers"][0]
    assert environment(webhook)["EDGEFARM_AUDIENCE"] == "keys"


def test_agents_and_gateways_read_their_files() -> None:
    found = objects(values_of("mesh"))
    agent, gateway = (one(found, "ConfigMap", name)["data"] for name in names.AGENT_SERVICE_ACCOUNTS.values())
    assert parse_file(agent["agent.yaml"]).enabled
    assert parse_file(agent["agent.yaml"]).containers
    assert parse_file(gateway["agent.yaml"]).enabled
    assert parse_settings(gateway["abbot.yaml"], {}).forwarding


def test_agents_show_two_tokens_for_two_audiences() -> None:
    found = pods(objects(values_of("mesh")))
    for name in names.AGENT_SERVICE_ACCOUNTS.values():
        spec = found[name]["spec"]
        (tokens,) = [volume for volume in spec["volumes"] if volume["name"] == "tokens"]
        audiences = [source["serviceAccountToken"]["audience"] for source in tokens["projected"]["sources"]]
        assert audiences == [names.DEFAULT_AUDIENCE, names.AGENT_AUDIENCE]
        assert spec["serviceAccountName"] == name
        assert spec["terminationGracePeriodSeconds"] >= 10


def test_agents_start_again_when_their_files_change() -> None:
    def checksum(values: dict[str, Any]) -> str:
        pod = pods(objects({**values_of("mesh"), "agent": {"enabled": True, **values}}))["network-agent"]
        return str(pod["metadata"]["annotations"]["checksum/configuration"])

    assert checksum({}) == checksum({"logLevel": "debug"})
    assert checksum({}) != checksum({"containers": False})


def test_the_webhook_is_registered_by_service_or_by_url() -> None:
    def client(name: str) -> Any:
        found = one(objects(values_of(name)), "MutatingWebhookConfiguration", names.WEBHOOK_CONFIGURATION)
        return found["webhooks"][0]["clientConfig"]

    service = {"name": names.WEBHOOK_SERVICE, "namespace": NAMESPACE, "path": "/mutate", "port": 443}
    assert client("in-cluster") == {"service": service}
    assert client("localcluster") == {"url": "https://127.64.0.1:8443/mutate"}
    assert configuration(objects(values_of("localcluster")))["webhook"]["hosts"] == ["127.64.0.1"]


def test_cert_manager_issues_the_certificate_for_the_names_that_the_reconciler_would() -> None:
    found = objects(values_of("cert-manager"))
    spec = one(found, "Certificate", "network-webhook")["spec"]
    assert spec["secretName"] == names.WEBHOOK_SECRET
    assert spec["dnsNames"] == [*names.webhook_hosts(NAMESPACE), "webhook.example"]
    assert spec["ipAddresses"] == ["192.0.2.1", "2001:db8::1"]
    assert spec["issuerRef"] == {"name": "internal", "kind": "ClusterIssuer"}
    registration = one(found, "MutatingWebhookConfiguration", names.WEBHOOK_CONFIGURATION)
    assert registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == f"{NAMESPACE}/network-webhook"
    assert configuration(found)["webhook"]["issueCertificate"] is False
    assert "Issuer" not in {kind for kind, _ in kinds(found)}


def test_cert_manager_makes_an_authority_where_no_issuer_is_named() -> None:
    found = objects(values_of("everything"))
    assert one(found, "Certificate", "network-webhook")["spec"]["issuerRef"] == {"name": "network-webhook"}
    root = one(found, "Certificate", "network-webhook-root")["spec"]
    assert root["isCA"] is True
    assert root["secretName"] != names.WEBHOOK_CA_SECRET, "which is the reconciler's"
    assert one(found, "Issuer", "network-webhook")["spec"] == {"ca": {"secretName": root["secretName"]}}
    assert one(found, "Issuer", root["issuerRef"]["name"])["spec"] == {"selfSigned": {}}


def test_edge_hosts_are_selected_by_labels_of_the_user() -> None:
    values = {"enabled": True, "nodeSelector": {"network.edgefarm.io/edge": None, "site": "plant-a"}}
    template = pods(objects({"mesh": {"enabled": True}, "agent": values}))["network-agent"]
    assert template["spec"]["nodeSelector"] == {"site": "plant-a"}


def test_one_replica_has_no_budget_that_would_keep_its_node() -> None:
    budgets = {name for kind, name in kinds(objects(values_of("localcluster"))) if kind == "PodDisruptionBudget"}
    assert budgets == set()
    assert ("PodDisruptionBudget", "network-webhook") in kinds(objects())
