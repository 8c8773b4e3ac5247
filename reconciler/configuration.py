"""The reconciler's configuration: the ConfigMap `network` as one frozen value (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class VaultConfiguration:
    """Where Vault or OpenBao is, and the names of our mounts in it."""

    address: str
    ca_bundle: str | None
    auth_mount: str
    transit_mount: str
    kv_mount: str
    namespace: str
    audience: str


@dataclass(frozen=True)
class NatsConfiguration:
    """Where the hub is: `urls` for the reconciler, `client_urls` for pods."""

    urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    ca_bundle: str | None


@dataclass(frozen=True)
class CredentialsConfiguration:
    """When a sidecar renews its credentials, and how long they are valid."""

    renew_every: timedelta
    lifetime: timedelta


@dataclass(frozen=True)
class KeysConfiguration:
    """How often a Policy's scoped key rotates, and how long the old version stays in the account."""

    rotate_every: timedelta
    overlap: timedelta


@dataclass(frozen=True)
class WebhookConfiguration:
    """Whether the reconciler issues the webhook's certificate, and additional names and addresses in it."""

    issue_certificate: bool
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Configuration:
    """Everything that the ConfigMap `network` says."""

    vault: VaultConfiguration
    nats: NatsConfiguration
    credentials: CredentialsConfiguration
    keys: KeysConfiguration
    webhook: WebhookConfiguration
    resync: timedelta
