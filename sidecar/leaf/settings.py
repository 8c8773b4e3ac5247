"""What the sidecar of a leaf is told by its environment, read once; docs/architecture.md lists the variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.env import Environment
from sidecar.settings import LOG_LEVELS, Pod, VaultSettings, read_ca_bundle, read_pod, read_vault

_DATA_DIR: Final = "/var/lib/edgefarm"
#: Seconds between two looks at nats-server, at most.
_LOOK_EVERY: Final = 2.0


@dataclass(frozen=True)
class ServerSettings:
    """The nats-server beside us: where it listens, and which folders we share with it.

    `tls_dir` holds `tls.crt` and `tls.key` for its clients; None: they connect without TLS.
    """

    host: str
    client_port: int
    monitor_port: int
    data_dir: Path
    config_dir: Path
    tls_dir: Path | None

    @property
    def credentials(self) -> Path:
        """Folder of both users and the access document."""
        return self.data_dir / "credentials"

    @property
    def configuration(self) -> Path:
        """The file that nats-server is started with."""
        return self.config_dir / "leaf.conf"

    @property
    def pid_file(self) -> Path:
        """Where nats-server writes its process id."""
        return self.config_dir / "nats.pid"

    @property
    def hub_ca(self) -> Path:
        """What nats-server verifies the hub against."""
        return self.config_dir / "hub-ca.crt"


@dataclass(frozen=True)
class LeafSettings:
    """Everything that the sidecar of a leaf is told; periods are in seconds."""

    pod: Pod
    node: str
    vault: VaultSettings
    server: ServerSettings
    ca_bundle: str | None
    health_port: int
    log_level: str
    refresh_seconds: int
    grant_retry_seconds: int

    @property
    def look_every(self) -> float:
        """Seconds between two looks at nats-server: no more than between two at Vault, whose changes it is to take."""
        return min(_LOOK_EVERY, self.refresh_seconds)

    @property
    def domain(self) -> str:
        """JetStream domain and server name of the leaf."""
        return names.leaf_domain(self.pod.network, self.node)

    @property
    def user(self) -> str:
        """Name of the leaf's NATS user in the network; the rights of leafs depend on it."""
        return names.leaf_user(self.pod.network, self.domain)


def load(variables: Mapping[str, str]) -> LeafSettings:
    """Read all settings; raise SettingsError naming every variable that is missing or wrong."""
    environment = Environment(variables)
    pod = read_pod(environment)
    settings = LeafSettings(
        pod=pod,
        node=environment.text("EDGEFARM_NODE_NAME"),
        vault=read_vault(environment),
        server=_server(environment, pod),
        ca_bundle=read_ca_bundle(environment),
        health_port=environment.port("EDGEFARM_HEALTH_PORT", 3580),
        log_level=environment.text("EDGEFARM_LOG_LEVEL", "info", choices=LOG_LEVELS),
        refresh_seconds=environment.integer("EDGEFARM_REFRESH_SECONDS", 30, low=1, high=3600),
        grant_retry_seconds=environment.integer("EDGEFARM_GRANT_RETRY_SECONDS", 2, low=1, high=300),
    )
    environment.check()
    return settings


def data_dir(variables: Mapping[str, str]) -> Path:
    """The folder on the node's disk; all that `python -m sidecar leaf prepare` must know."""
    return Path(Environment(variables).text("EDGEFARM_LEAF_DATA_DIR", _DATA_DIR))


def _server(environment: Environment, pod: Pod) -> ServerSettings:
    tls_dir = environment.optional("EDGEFARM_LEAF_TLS_DIR")
    return ServerSettings(
        host=pod.ip,
        client_port=environment.port("EDGEFARM_LEAF_CLIENT_PORT", 4222),
        monitor_port=environment.port("EDGEFARM_LEAF_MONITOR_PORT", 8222),
        data_dir=Path(environment.text("EDGEFARM_LEAF_DATA_DIR", _DATA_DIR)),
        config_dir=Path(environment.text("EDGEFARM_LEAF_CONFIG_DIR", "/etc/nats")),
        tls_dir=Path(tls_dir) if tls_dir else None,
    )
