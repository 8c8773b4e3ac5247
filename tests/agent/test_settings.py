"""What the agent is told: environment, file, and what it says about mistakes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.backoff import Backoff
from agent.executor import Encoding, NetworkSettings
from agent.settings import parse_file, read_settings
from edgefarm.errors import InvalidResource, SettingsError

MINIMAL = {"EDGEFARM_VAULT_ADDR": "https://vault:8200", "EDGEFARM_NODE_NAME": "edge-1"}
EXEC = "abbotExec: [/usr/bin/abbot, process]"


def with_file(work: Path, text: str, **variables: str) -> dict[str, str]:
    """The environment of an agent with this file."""
    (work / "agent.yaml").write_text(text)
    return {**MINIMAL, "EDGEFARM_AGENT_CONFIG": str(work / "agent.yaml"), **variables}


def test_the_seeds_configuration_is_read() -> None:
    text = """\
network:
  # enable abbot request processing
  enabled: false
  abbotExec:
  - /path/to/abbot
  - -c
  - /path/to/abbot-config.yaml
  - process
"""
    settings = parse_file(text)
    assert settings == NetworkSettings(
        arguments=("/path/to/abbot", "-c", "/path/to/abbot-config.yaml", "process"),
    )


def test_all_members_of_the_file_are_read() -> None:
    settings = parse_file(
        f"network: {{enabled: true, {EXEC}, stdinEncoding: raw, stdoutEncoding: raw, timeout: 1m30s, "
        "maxOutput: 1Mi, concurrency: 2}\ncontainers: true\n"
    )
    assert settings == NetworkSettings(
        True, ("/usr/bin/abbot", "process"), Encoding.RAW, Encoding.RAW, 90.0, 1024 * 1024, 2, containers=True
    )


def test_an_empty_file_means_the_defaults() -> None:
    assert parse_file("") == NetworkSettings()
    assert parse_file("network:\n") == NetworkSettings()


def test_an_authority_that_cannot_be_read_is_named(work: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"
    variables = with_file(work, "", EDGEFARM_CA_BUNDLE=pem)
    command = [sys.executable, "-m", "agent"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=variables)
    assert (ended.returncode, ended.stderr) == (2, "agent: EDGEFARM_CA_BUNDLE holds no certificate that can be read\n")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("network: []", "network"),
        ("[]", "the file"),
        ("network: {enabled: yes please}", "network.enabled"),
        ("network: {enabled: true}", "network.abbotExec"),
        ("network: {abbotExec: /usr/bin/abbot process}", "network.abbotExec"),
        ("network: {abbotExec: [/usr/bin/abbot, 7]}", "network.abbotExec[1]"),
        ('network: {abbotExec: [""]}', "network.abbotExec[0]"),
        ("network: {stdinEncoding: hex}", "network.stdinEncoding"),
        ("network: {stdoutEncoding: hex}", "network.stdoutEncoding"),
        ("network: {timeout: 30}", "network.timeout"),
        ("network: {timeout: 0s}", "network.timeout"),
        ("network: {timeout: 2h}", "network.timeout"),
        ("network: {maxOutput: 0}", "network.maxOutput"),
        ("network: {maxOutput: 1Gi}", "network.maxOutput"),
        ("network: {concurrency: 0}", "network.concurrency"),
        ("network: {abbotexec: []}", "network.abbotexec"),
        ("containers: 1", "containers"),
        ("networks: {}", "networks"),
        ("a:\n - b\n c", "line 3"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, field: str) -> None:
    with pytest.raises(InvalidResource) as raised:
        parse_file(text)
    assert raised.value.field == field


def test_defaults_follow_the_contract(work: Path) -> None:
    settings = read_settings(with_file(work, ""))
    assert settings.identity.role == "agents_.network-agent"
    assert settings.identity.document == "access/AGENTS/network/network-agent"
    assert (settings.health_host, settings.health_port) == ("127.0.0.1", 3590)
    assert settings.vault.address == "https://vault:8200"


def test_all_mistakes_are_named_at_once(work: Path) -> None:
    variables = with_file(
        work,
        "containers: maybe",
        EDGEFARM_VAULT_ADDR="vault:8200",
        EDGEFARM_NODE_NAME="",
        EDGEFARM_NAMESPACE="Not.A.Label",
        EDGEFARM_SERVICE_ACCOUNT="_",
        EDGEFARM_CA_BUNDLE="/etc/ca.crt",
        EDGEFARM_HEALTH_PORT="0",
        EDGEFARM_LOG_LEVEL="loud",
    )
    with pytest.raises(SettingsError) as raised:
        read_settings(variables)
    named = {problem.split()[0] for problem in raised.value.problems}
    assert named == {
        "EDGEFARM_AGENT_CONFIG",
        "EDGEFARM_CA_BUNDLE",
        "EDGEFARM_HEALTH_PORT",
        "EDGEFARM_LOG_LEVEL",
        "EDGEFARM_NAMESPACE",
        "EDGEFARM_NODE_NAME",
        "EDGEFARM_SERVICE_ACCOUNT",
        "EDGEFARM_VAULT_ADDR",
    }
    assert any("containers: must be true or false" in problem for problem in raised.value.problems)


def test_a_missing_file_is_named(work: Path) -> None:
    with pytest.raises(SettingsError, match=r"EDGEFARM_AGENT_CONFIG is '.*/none.yaml', which cannot be read: No such"):
        read_settings({**MINIMAL, "EDGEFARM_AGENT_CONFIG": str(work / "none.yaml")})


def test_the_command_line_teaches_and_wrong_settings_end_with_status_2(work: Path) -> None:
    command = [sys.executable, "-m", "agent"]
    taught = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, timeout=60)
    for word in ("EDGEFARM_AGENT_TOKEN_FILE", "abbotExec", "EDGEFARM_HEALTH_HOST", "docs/agent.md"):
        assert word in taught.stdout
    wrong = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={})
    assert wrong.returncode == 2
    assert "agent: EDGEFARM_VAULT_ADDR is not set\n" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_waits_grow_to_a_limit_and_start_anew_after_success() -> None:
    backoff = Backoff(1, 30, lambda: 1.0)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1
    assert Backoff(1, 30, lambda: 0.0).next() == 0.5
