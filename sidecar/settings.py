"""What the sidecar is told by its environment, read once; docs/architecture.md lists the variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.env import Environment
from edgefarm.errors import InvalidName
from sidecar.route import Timing

MODE_DAPR: Final = "dapr"
MODE_NATS: Final = "nats"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Pod:
    """Who we are: the grant and the access document follow from it."""

    network: str
    namespace: str
    service_account: str
    name: str
    ip: str
    #: The Policy that the pod's author expects to hold for the service account, if any.
    policy: str | None = None

    @property
    def role(self) -> str:
        """The Vault role of the grant."""
        return names.grant_role(self.network, self.namespace, self.service_account)

    @property
    def document(self) -> str:
        """The KV path of the access document."""
        return names.access_document(self.network, self.namespace, self.service_account)

    @property
    def nats_user(self) -> str:
        """Name of the NATS user: for people who look at a server's connections, never for permissions."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class VaultSettings:
    """Where Vault is and under which mounts the reconciler keeps our things."""

    address: str
    auth_mount: str
    transit_mount: str
    kv_mount: str
    namespace: str | None
    token_file: Path
    audience: str


@dataclass(frozen=True)
class DaprSettings:
    """How daprd is started in mode `dapr`."""

    program: str
    components_dir: Path
    listen_address: str
    http_port: int
    grpc_port: int
    app_id: str
    app_port: int | None
    app_protocol: str
    log_level: str
    #: A Dapr Configuration of the user, beside ours.
    config: Path | None = None
    app_max_concurrency: int | None = None
    #: A Kubernetes quantity, as daprd takes it.
    max_body_size: str | None = None
    api_logging: bool = False
    #: How long it may take to finish requests and close its components after SIGTERM.
    shutdown_seconds: int = 5
    #: Dapr's own shutdown call ends the sidecar, too: the application of a Job says so that it is done.
    shutdown_ends: bool = False


@dataclass(frozen=True)
class RelaySettings:
    """Where applications find NATS in mode `nats`."""

    listen_address: str
    port: int


@dataclass(frozen=True)
class Settings:
    """Everything the sidecar is told; periods are in seconds."""

    pod: Pod
    mode: str
    vault: VaultSettings
    dapr: DaprSettings
    ca_bundle: str | None
    credentials_dir: Path
    relay: RelaySettings | None
    route: Timing
    health_port: int
    log_level: str
    refresh_seconds: int
    grant_retry_seconds: int


def load(variables: Mapping[str, str]) -> Settings:
    """Read all settings; raise SettingsError naming every variable that is missing or wrong."""
    environment = Environment(variables)
    pod = read_pod(environment)
    settings = Settings(
        pod=pod,
        mode=environment.text("EDGEFARM_MODE", MODE_DAPR, choices=(MODE_DAPR, MODE_NATS)),
        vault=read_vault(environment),
        dapr=_dapr(environment, pod),
        ca_bundle=read_ca_bundle(environment),
        credentials_dir=Path(environment.text("EDGEFARM_CREDENTIALS_DIR", "/var/run/edgefarm/credentials")),
        relay=_relay(environment),
        route=_route(environment),
        health_port=environment.port("EDGEFARM_HEALTH_PORT", 3580),
        log_level=environment.text("EDGEFARM_LOG_LEVEL", "info", choices=LOG_LEVELS),
        refresh_seconds=environment.integer("EDGEFARM_REFRESH_SECONDS", 30, low=1, high=3600),
        grant_retry_seconds=environment.integer("EDGEFARM_GRANT_RETRY_SECONDS", 2, low=1, high=300),
    )
    environment.check()
    return settings


def read_ca_bundle(environment: Environment) -> str | None:
    """What Vault and NATS are verified against, as PEM text; None: the system's roots."""
    bundle = environment.optional("EDGEFARM_CA_BUNDLE")
    if bundle is not None and "-----BEGIN CERTIFICATE-----" not in bundle:
        environment.problem("EDGEFARM_CA_BUNDLE", "holds no certificate: write PEM text (not a path)")
    return bundle


def health_address(variables: Mapping[str, str]) -> tuple[str, int]:
    """Where a running sidecar answers health requests; all that `python -m sidecar probe` must know."""
    environment = Environment(variables)
    address = environment.text("EDGEFARM_POD_IP"), environment.port("EDGEFARM_HEALTH_PORT", 3580)
    environment.check()
    return address


def read_pod(environment: Environment) -> Pod:
    """Who we are."""
    pod = Pod(
        network=environment.text("EDGEFARM_NETWORK"),
        namespace=environment.text("EDGEFARM_NAMESPACE"),
        service_account=environment.text("EDGEFARM_SERVICE_ACCOUNT"),
        name=environment.text("EDGEFARM_POD_NAME"),
        ip=environment.text("EDGEFARM_POD_IP"),
        policy=environment.optional("EDGEFARM_POLICY"),
    )
    for variable, value, what in (
        ("EDGEFARM_NETWORK", pod.network, "network"),
        ("EDGEFARM_NAMESPACE", pod.namespace, "namespace"),
        ("EDGEFARM_SERVICE_ACCOUNT", pod.service_account, "service account"),
    ):
        try:
            names.check_label(value or "unset", what)
        except InvalidName as error:
            environment.problem(variable, f"is wrong: {error}")
    return pod


def read_vault(environment: Environment) -> VaultSettings:
    """Where Vault is."""
    address = environment.text("EDGEFARM_VAULT_ADDR").rstrip("/")
    if address and not address.startswith(("https://", "http://")):
        environment.problem("EDGEFARM_VAULT_ADDR", f"is {address!r}: write https://host:port")
    return VaultSettings(
        address=address,
        auth_mount=environment.text("EDGEFARM_VAULT_AUTH_MOUNT", names.DEFAULT_AUTH_MOUNT),
        transit_mount=environment.text("EDGEFARM_VAULT_TRANSIT_MOUNT", names.DEFAULT_TRANSIT_MOUNT),
        kv_mount=environment.text("EDGEFARM_VAULT_KV_MOUNT", names.DEFAULT_KV_MOUNT),
        namespace=environment.optional("EDGEFARM_VAULT_NAMESPACE"),
        token_file=Path(environment.text("EDGEFARM_TOKEN_FILE", "/var/run/secrets/edgefarm.io/token")),
        audience=environment.text("EDGEFARM_AUDIENCE", names.DEFAULT_AUDIENCE),
    )


def _relay(environment: Environment) -> RelaySettings | None:
    """None where the port is not set: the application connects by itself then."""
    port = environment.integer("EDGEFARM_NATS_PORT", 0, high=65535)
    return RelaySettings(_listen_address(environment), port) if port else None


def _route(environment: Environment) -> Timing:
    return Timing(
        patience=environment.integer("EDGEFARM_ROUTE_PATIENCE_SECONDS", 3, low=1, high=300),
        steady=environment.integer("EDGEFARM_ROUTE_STEADY_SECONDS", 10, low=1, high=3600),
        search=environment.integer("EDGEFARM_ROUTE_SEARCH_SECONDS", 45, low=1, high=3600),
    )


def _listen_address(environment: Environment) -> str:
    return environment.text("EDGEFARM_LISTEN_ADDRESS", "127.0.0.1")


def _dapr(environment: Environment, pod: Pod) -> DaprSettings:
    app_port = environment.integer("EDGEFARM_DAPR_APP_PORT", 0, high=65535)
    concurrency = environment.integer("EDGEFARM_DAPR_APP_MAX_CONCURRENCY", 0)
    config = environment.optional("EDGEFARM_DAPR_CONFIG")
    return DaprSettings(
        program=environment.text("EDGEFARM_DAPRD", "/daprd"),
        components_dir=Path(environment.text("EDGEFARM_COMPONENTS_DIR", "/var/run/edgefarm/components")),
        listen_address=_listen_address(environment),
        http_port=environment.port("EDGEFARM_DAPR_HTTP_PORT", 3500),
        grpc_port=environment.port("EDGEFARM_DAPR_GRPC_PORT", 50001),
        app_id=environment.text("EDGEFARM_DAPR_APP_ID", pod.name or "unset"),
        app_port=app_port or None,
        app_protocol=environment.text(
            "EDGEFARM_DAPR_APP_PROTOCOL", "http", choices=("http", "https", "grpc", "grpcs", "h2c")
        ),
        log_level=environment.text(
            "EDGEFARM_DAPR_LOG_LEVEL", "info", choices=("debug", "info", "warn", "error", "fatal")
        ),
        config=Path(config) if config else None,
        app_max_concurrency=concurrency or None,
        max_body_size=environment.optional("EDGEFARM_DAPR_MAX_BODY_SIZE"),
        api_logging=environment.boolean("EDGEFARM_DAPR_API_LOGGING", False),
        shutdown_seconds=environment.integer("EDGEFARM_DAPR_SHUTDOWN_SECONDS", 5, low=1, high=3600),
        shutdown_ends=environment.boolean("EDGEFARM_DAPR_SHUTDOWN_ENDS", False),
    )
