"""Reads the webhook's environment once into frozen settings; nothing else in the program looks at the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.env import Environment

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")

#: Every variable with its default ("required" when there is none) and meaning; `--help` prints it.
VARIABLES: Final = (
    ("EDGEFARM_SIDECAR_IMAGE", "required", "image of the sidecar"),
    ("EDGEFARM_VAULT_ADDR", "required", "URL of Vault or OpenBao as pods reach it"),
    ("EDGEFARM_NATS_URL", "required", "URLs of NATS as pods reach it, separated by commas (NATS_URL in mode nats)"),
    ("EDGEFARM_VAULT_AUTH_MOUNT", names.DEFAULT_AUTH_MOUNT, "mount of the Kubernetes auth method"),
    ("EDGEFARM_VAULT_TRANSIT_MOUNT", names.DEFAULT_TRANSIT_MOUNT, "mount of the signing keys"),
    ("EDGEFARM_VAULT_KV_MOUNT", names.DEFAULT_KV_MOUNT, "mount of the access documents"),
    ("EDGEFARM_VAULT_NAMESPACE", "none", "namespace inside Vault Enterprise or OpenBao"),
    ("EDGEFARM_CA_FILE", "none", "PEM file, followed, that pods verify Vault and NATS against; else system roots"),
    ("EDGEFARM_AUDIENCE", names.DEFAULT_AUDIENCE, "audience of the pods' tokens for Vault"),
    ("EDGEFARM_SIDECAR_NATIVE", "true", "false: an ordinary container for clusters without native sidecars"),
    ("EDGEFARM_SIDECAR_EXTRA_ENV", "{}", "JSON object with more environment for the sidecar"),
    ("EDGEFARM_NAMESPACE", names.CONTROLLER_NAMESPACE, "the controller namespace, whose pods are never changed"),
    ("EDGEFARM_WEBHOOK_HOST", "0.0.0.0", "address to listen on"),  # noqa: S104 - a pod's own network namespace
    ("EDGEFARM_WEBHOOK_PORT", "8443", "port of POST /mutate (TLS)"),
    ("EDGEFARM_WEBHOOK_HEALTH_PORT", "8080", "port of /healthz, /readyz and /metrics (plain HTTP)"),
    ("EDGEFARM_WEBHOOK_HEALTH_HOST", "as EDGEFARM_WEBHOOK_HOST", "address of that port, which replicas do not share"),
    ("EDGEFARM_WEBHOOK_CERT_DIR", "/etc/edgefarm/webhook-tls", "folder with tls.crt and tls.key"),
    ("EDGEFARM_WEBHOOK_DRAIN", "5s", "how long it still serves after SIGTERM while it is no longer ready"),
    ("EDGEFARM_LOG_LEVEL", "info", "debug, info, warning or error; of the webhook and of the sidecars"),
)
_DEFAULTS: Final = {name: default for name, default, _ in VARIABLES}


@dataclass(frozen=True)
class Vault:
    """Where sidecars find Vault."""

    address: str
    auth_mount: str = names.DEFAULT_AUTH_MOUNT
    transit_mount: str = names.DEFAULT_TRANSIT_MOUNT
    kv_mount: str = names.DEFAULT_KV_MOUNT
    namespace: str | None = None


# Compared by identity: there is one for the whole process, and what it leads to is cached.
@dataclass(frozen=True, eq=False)
class Injection:
    """What goes into a pod: the same for every pod of the cluster."""

    image: str
    vault: Vault
    nats_url: str
    ca_bundle: str | None = None
    audience: str = names.DEFAULT_AUDIENCE
    native: bool = True
    extra_env: Mapping[str, str] = field(default_factory=dict)
    excluded_namespaces: frozenset[str] = frozenset({"kube-system", names.CONTROLLER_NAMESPACE})
    log_level: str = "info"


@dataclass(frozen=True)
class Settings:
    """How the webhook listens, and what it injects: with `ca_bundle` from `ca_file`, which may change.

    `drain_seconds`: see EDGEFARM_WEBHOOK_DRAIN.
    """

    host: str
    port: int
    health_port: int
    health_host: str
    certificates: Path
    drain_seconds: float
    log_level: str
    ca_file: Path | None
    injection: Injection

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Settings:
        """Read the environment; raise SettingsError that names every variable that is missing or wrong."""
        env = Environment(variables)
        host = env.text("EDGEFARM_WEBHOOK_HOST", _DEFAULTS["EDGEFARM_WEBHOOK_HOST"])
        settings = cls(
            host=host,
            port=env.port("EDGEFARM_WEBHOOK_PORT", 8443),
            health_port=env.port("EDGEFARM_WEBHOOK_HEALTH_PORT", 8080),
            health_host=env.text("EDGEFARM_WEBHOOK_HEALTH_HOST", host),
            certificates=Path(env.text("EDGEFARM_WEBHOOK_CERT_DIR", _DEFAULTS["EDGEFARM_WEBHOOK_CERT_DIR"])),
            drain_seconds=env.duration("EDGEFARM_WEBHOOK_DRAIN", _DEFAULTS["EDGEFARM_WEBHOOK_DRAIN"]).total_seconds(),
            log_level=env.text("EDGEFARM_LOG_LEVEL", "info", choices=_LOG_LEVELS),
            ca_file=_path(env, "EDGEFARM_CA_FILE"),
            injection=_read_injection(env),
        )
        env.check()
        return settings


def _read_injection(env: Environment) -> Injection:
    return Injection(
        image=env.text("EDGEFARM_SIDECAR_IMAGE"),
        vault=Vault(
            address=_url(env, "EDGEFARM_VAULT_ADDR", ("https://", "http://")),
            auth_mount=env.text("EDGEFARM_VAULT_AUTH_MOUNT", names.DEFAULT_AUTH_MOUNT),
            transit_mount=env.text("EDGEFARM_VAULT_TRANSIT_MOUNT", names.DEFAULT_TRANSIT_MOUNT),
            kv_mount=env.text("EDGEFARM_VAULT_KV_MOUNT", names.DEFAULT_KV_MOUNT),
            namespace=env.optional("EDGEFARM_VAULT_NAMESPACE"),
        ),
        nats_url=_url(env, "EDGEFARM_NATS_URL", ("tls://", "nats://", "ws://", "wss://")),
        audience=env.text("EDGEFARM_AUDIENCE", names.DEFAULT_AUDIENCE),
        native=env.boolean("EDGEFARM_SIDECAR_NATIVE", True),
        extra_env=_extra_env(env),
        excluded_namespaces=frozenset({"kube-system", env.text("EDGEFARM_NAMESPACE", names.CONTROLLER_NAMESPACE)}),
        log_level=env.text("EDGEFARM_LOG_LEVEL", "info"),
    )


def _url(env: Environment, name: str, schemes: tuple[str, ...]) -> str:
    value = env.text(name)
    if value and not all(part.strip().startswith(schemes) for part in value.split(",")):
        env.problem(name, f"is {value!r}: write a URL that begins with {' or '.join(schemes)}")
    return value


def _path(env: Environment, name: str) -> Path | None:
    value = env.optional(name)
    return Path(value) if value else None


def _extra_env(env: Environment) -> dict[str, str]:
    name = "EDGEFARM_SIDECAR_EXTRA_ENV"
    try:
        value = json.loads(env.optional(name) or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        env.problem(name, 'is no JSON object of texts: write for example {"EDGEFARM_DAPRD": "/daprd"}')
        return {}
    return value
