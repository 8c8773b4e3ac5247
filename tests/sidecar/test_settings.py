"""Settings, the command line and the texts that the sidecar writes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from edgefarm.errors import InvalidResource, SettingsError, VaultRefused
from sidecar import component
from sidecar.access import AccessDocument
from sidecar.refusal import explain
from sidecar.settings import Pod, load
from tests.sidecar.values import ACCESS, held

REQUIRED = {
    "EDGEFARM_NETWORK": "foo",
    "EDGEFARM_NAMESPACE": "plant",
    "EDGEFARM_SERVICE_ACCOUNT": "sensor",
    "EDGEFARM_POD_NAME": "sensor-0",
    "EDGEFARM_POD_IP": "10.0.0.7",
    "EDGEFARM_VAULT_ADDR": "https://vault.example:8200/",
}
POD = Pod("foo", "plant", "sensor", "sensor-0", "10.0.0.7")


def test_what_is_not_said_has_the_documented_default() -> None:
    settings = load(REQUIRED)
    assert settings.mode == "dapr"
    assert settings.vault.address == "https://vault.example:8200"
    assert (settings.dapr.http_port, settings.dapr.grpc_port, settings.health_port) == (3500, 50001, 3580)
    assert (settings.dapr.app_id, settings.dapr.app_port) == ("sensor-0", None)
    assert (settings.pod.role, settings.pod.document) == ("foo.plant.sensor", "access/foo/plant/sensor")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("EDGEFARM_NETWORK", "", "is not set"),
        ("EDGEFARM_NAMESPACE", "Plant.One", "is wrong: namespace"),
        ("EDGEFARM_MODE", "magic", "write one of dapr, nats"),
        ("EDGEFARM_VAULT_ADDR", "vault.example", "write https://host:port"),
        ("EDGEFARM_CA_BUNDLE", "/etc/ca.crt", "write PEM text"),
        ("EDGEFARM_DAPR_HTTP_PORT", "http", "write a whole number"),
        ("EDGEFARM_DAPR_APP_PROTOCOL", "ftp", "write one of"),
    ],
)
def test_a_wrong_variable_is_named_with_what_to_write(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**REQUIRED, variable: value})
    assert any(problem.startswith(variable) and says in problem for problem in caught.value.problems)


def test_the_program_ends_with_status_2_and_one_line_per_wrong_variable() -> None:
    done = _sidecar(env={"EDGEFARM_MODE": "magic"})
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert {line.split(" ")[0] for line in lines} >= {"EDGEFARM_MODE", "EDGEFARM_VAULT_ADDR", "EDGEFARM_POD_IP"}
    assert all(line.startswith("EDGEFARM_") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["--version"], 0), (["run"], 2), (["probe", "x"], 2)]
)
def test_the_command_line_is_small(arguments: list[str], status: int) -> None:
    done = _sidecar(*arguments)
    assert done.returncode == status
    assert (done.stdout if status == 0 else done.stderr) != ""


def test_the_probe_of_a_sidecar_that_does_not_run_fails() -> None:
    done = _sidecar("probe", env={"EDGEFARM_POD_IP": "127.0.0.1", "EDGEFARM_HEALTH_PORT": "1"})
    assert (done.returncode, "does not answer" in done.stderr) == (1, True)


def test_the_access_document_is_read_whole_and_members_of_later_layouts_are_ignored() -> None:
    assert AccessDocument.parse({**ACCESS.document(), "later": True}) == ACCESS
    with_leaf = replace(ACCESS, leaf=("tls://10.0.0.1:4222",), leaf_ca="-----BEGIN CERTIFICATE-----")
    assert AccessDocument.parse(with_leaf.document()) == with_leaf


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 2),
        ("network", ""),
        ("account", None),
        ("keyVersion", True),
        ("keyVersion", 0),
        ("hub", []),
        ("hub", "tls://nats"),
        ("hub", ["tls://nats:port"]),
        ("leaf", [1]),
        ("lifetimeSeconds", "30d"),
        ("leafCa", "/etc/ca.crt"),
        ("leafCa", 1),
    ],
)
def test_a_wrong_member_of_the_access_document_is_named(member: str, value: object) -> None:
    with pytest.raises(InvalidResource, match=f"^{member}: "):
        AccessDocument.parse({**ACCESS.document(), member: value})


@pytest.mark.parametrize("awkward", ['quote " and \\', "colon: # not a comment", "line\nbreak", "ünïcode", "{{x}}"])
def test_the_component_is_yaml_whatever_its_values_hold(awkward: str) -> None:
    text = component.render(held(jwt=awkward, seed=awkward), [awkward, "tls://b"], awkward, since=7)
    parsed = yaml.safe_load(text)
    assert parsed["metadata"] == {"name": "network"}
    assert parsed["spec"]["type"] == "pubsub.jetstream"
    assert {item["name"]: item["value"] for item in parsed["spec"]["metadata"]} == {
        "natsURL": f"{awkward},tls://b",
        "name": awkward,
        "jwt": awkward,
        "seedKey": awkward,
        "deliverPolicy": "time",
        "startTime": "7",
    }


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.e30.c", "a.W10.c"])
def test_a_token_that_is_none_is_named_as_the_cause_of_a_refusal(token: str) -> None:
    assert "holds no service account token" in explain(POD, "aud", token, VaultRefused("HTTP 403", 403), 0, "no grant")


def _sidecar(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *arguments]
    return subprocess.run(command, env=env or {}, capture_output=True, text=True, timeout=20, check=False)
