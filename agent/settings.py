"""Owns what the agent is told at start: its environment and its file, read once; docs/agent.md lists both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml

from agent.executor import Encoding, NetworkSettings
from edgefarm import names
from edgefarm.agentparts import MAX_BYTES, MAX_TIMEOUT
from edgefarm.api.reading import Fields
from edgefarm.env import Environment
from edgefarm.errors import EdgefarmError, InvalidName, InvalidResource
from edgefarm.vault import VaultSettings

DEFAULT_FILE: Final = "/etc/edgefarm/agent.yaml"
#: Seconds for each of the requests of a login to Vault.
_VAULT_TIMEOUT: Final = 5.0
_MAX_CONCURRENCY: Final = 64


@dataclass(frozen=True)
class Identity:
    """Who the agent is: its Vault role and its access document follow from it. `node` is for humans only: what counts
    is the node that its token proves."""

    namespace: str
    service_account: str
    node: str
    #: Projected tokens: for Vault, and for the reconciler. Files, because the kubelet replaces their content.
    vault_token: Path
    proof_token: Path

    @property
    def role(self) -> str:
        """The Vault role."""
        return names.agent_role(self.service_account)

    @property
    def document(self) -> str:
        """The KV path of the access document."""
        return names.agent_access_document(self.namespace, self.service_account)

    @property
    def nats_user(self) -> str:
        """Name of the NATS user: for people who look at a server's connections, never for permissions."""
        return f"{self.service_account}/{self.node}"


@dataclass(frozen=True)
class Settings:
    """Everything that the agent is told."""

    identity: Identity
    vault: VaultSettings
    network: NetworkSettings
    health_host: str
    health_port: int
    log_level: str
    #: PEM text that Vault and NATS are verified against; None: the system's roots.
    ca_bundle: str | None = field(repr=False)


def read_settings(variables: Mapping[str, str]) -> Settings:
    """Read environment and file; raise SettingsError that names everything that is missing or wrong."""
    env = Environment(variables)
    identity = _read_identity(env)
    ca_bundle = env.optional("EDGEFARM_CA_BUNDLE")
    if ca_bundle is not None and "-----BEGIN CERTIFICATE-----" not in ca_bundle:
        env.problem("EDGEFARM_CA_BUNDLE", "holds no certificate: write PEM text (not a path)")
    settings = Settings(
        identity=identity,
        vault=_read_vault(env, ca_bundle),
        network=_read_file(env),
        # Not all addresses: on an edge host, who else can reach them?
        health_host=env.text("EDGEFARM_HEALTH_HOST", "127.0.0.1"),
        health_port=env.port("EDGEFARM_HEALTH_PORT", 3590),
        log_level=env.text("EDGEFARM_LOG_LEVEL", "info", choices=("debug", "info", "warning", "error")),
        ca_bundle=ca_bundle,
    )
    env.check()
    return settings


def parse_file(text: str) -> NetworkSettings:
    """The content of the configuration file; InvalidResource with the member that is wrong."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "the file"
        raise InvalidResource(where, "is not YAML") from error
    if not isinstance(raw, Mapping | None):
        raise InvalidResource("the file", "must be an object with the members network and containers")
    root = Fields(raw or {}, "")
    network = root.child("network")
    timeout = network.duration("timeout") or timedelta(seconds=NetworkSettings.timeout)
    if timeout.total_seconds() > MAX_TIMEOUT:
        raise InvalidResource("network.timeout", f"must be at most {MAX_TIMEOUT:g}s")
    max_output = network.quantity("maxOutput")
    if max_output is None:
        max_output = NetworkSettings.max_output
    if not 0 < max_output <= MAX_BYTES:
        raise InvalidResource("network.maxOutput", f"must be from 1 to {MAX_BYTES} bytes")
    settings = NetworkSettings(
        enabled=network.boolean("enabled", False),
        arguments=network.texts("abbotExec", _check_argument),
        stdin=Encoding(network.choice("stdinEncoding", list(Encoding), Encoding.BASE64)),
        stdout=Encoding(network.choice("stdoutEncoding", list(Encoding), Encoding.BASE64)),
        timeout=timeout.total_seconds(),
        max_output=max_output,
        concurrency=network.integer("concurrency", NetworkSettings.concurrency, low=1, high=_MAX_CONCURRENCY),
        containers=root.boolean("containers", False),
    )
    network.closed()
    root.closed()
    if settings.enabled and not settings.arguments:
        raise InvalidResource("network.abbotExec", "is required while network.enabled is true: write a list")
    return settings


def _check_argument(argument: str) -> None:
    if not argument or "\0" in argument:
        raise ValueError("must be a non-empty string without NUL")


def _read_identity(env: Environment) -> Identity:
    identity = Identity(
        namespace=env.text("EDGEFARM_NAMESPACE", names.CONTROLLER_NAMESPACE),
        service_account=env.text("EDGEFARM_SERVICE_ACCOUNT", names.AGENT_SERVICE_ACCOUNTS[names.ROLE_EDGE]),
        node=env.text("EDGEFARM_NODE_NAME"),
        vault_token=Path(env.text("EDGEFARM_TOKEN_FILE", "/var/run/secrets/edgefarm.io/token")),
        proof_token=Path(env.text("EDGEFARM_AGENT_TOKEN_FILE", "/var/run/secrets/edgefarm.io/agent-token")),
    )
    for variable, value, what in (
        ("EDGEFARM_NAMESPACE", identity.namespace, "namespace"),
        ("EDGEFARM_SERVICE_ACCOUNT", identity.service_account, "service account"),
    ):
        try:
            names.check_label(value, what)
        except InvalidName as error:
            env.problem(variable, f"is wrong: {error}")
    return identity


def _read_vault(env: Environment, ca_bundle: str | None) -> VaultSettings:
    address = env.text("EDGEFARM_VAULT_ADDR").rstrip("/")
    if address and not address.startswith(("https://", "http://")):
        env.problem("EDGEFARM_VAULT_ADDR", f"is {address!r}: write https://host:port")
    return VaultSettings(
        address=address,
        ca_pem=ca_bundle,
        namespace=env.optional("EDGEFARM_VAULT_NAMESPACE") or "",
        auth_mount=env.text("EDGEFARM_VAULT_AUTH_MOUNT", names.DEFAULT_AUTH_MOUNT),
        transit_mount=env.text("EDGEFARM_VAULT_TRANSIT_MOUNT", names.DEFAULT_TRANSIT_MOUNT),
        kv_mount=env.text("EDGEFARM_VAULT_KV_MOUNT", names.DEFAULT_KV_MOUNT),
        timeout_seconds=_VAULT_TIMEOUT,
    )


def _read_file(env: Environment) -> NetworkSettings:
    path = Path(env.text("EDGEFARM_AGENT_CONFIG", DEFAULT_FILE))
    try:
        return parse_file(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        env.problem("EDGEFARM_AGENT_CONFIG", f"is {str(path)!r}, which cannot be read: {reason}")
    except EdgefarmError as error:
        env.problem("EDGEFARM_AGENT_CONFIG", f"is {str(path)!r}, in which something is wrong: {error}")
    return NetworkSettings()
