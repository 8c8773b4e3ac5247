"""The reconciler's configuration: the ConfigMap `network` as one frozen value (docs/architecture.md). Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from edgefarm import names
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource
from edgefarm.vault import VaultSettings
from reconciler.mesh_configuration import MeshConfiguration, read_mesh
from reconciler.server_configuration import ServerDefaults, ServerDeployment, read_deployment, read_references

#: Where the configuration is in the ConfigMap's data.
DATA_KEY: Final = "config.yaml"
#: Lies within the gap between renew deadline and duration of the Lease (docs/decisions/0007-reconciler-runtime.md).
_VAULT_TIMEOUT_SECONDS: Final = 5
#: More than this no cluster of NATS keeps of a stream.
_MOST_REPLICAS: Final = 5
_NATS_SCHEMES: Final = ("nats", "tls")
#: Ports of the servers that the reconciler runs.
VAULT_PORT: Final = 8200
NATS_PORT: Final = 4222
NATS_LEAF_PORT: Final = 7422
_VAULT_DEFAULTS: Final = ServerDefaults(names.OPENBAO_IMAGE, "auditStorage", "1Gi", ("address", "namespace"))
_NATS_DEFAULTS: Final = ServerDefaults(names.NATS_IMAGE, "memoryStorage", "256Mi", ("urls",))
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class VaultConfiguration:
    """Where Vault or OpenBao is with our mounts in it (`client_address` as edge nodes see it), and the audience of the
    tokens that pods show to it. `deployment`: how the reconciler runs it (None: somebody else does)."""

    server: VaultSettings
    client_address: str
    audience: str
    deployment: ServerDeployment | None = None


@dataclass(frozen=True)
class NatsConfiguration:
    """Where the hub is: `urls` for the reconciler, `client_urls` for pods, `leaf_urls` for leafs (none: no edge).
    `deployment`: how the reconciler runs it (None: somebody else does)."""

    urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    leaf_urls: tuple[str, ...]
    ca_bundle: str | None
    deployment: ServerDeployment | None = None


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
class LeafConfiguration:
    """The images of a leaf's two containers, and the Secrets of the controller namespace by which they are pulled."""

    sidecar_image: str
    nats_image: str
    image_pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamsConfiguration:
    """Who manages JetStream: `native` the reconciler itself, `nack` the controller of NATS. `replicas` is on how many
    servers of the hub each main stream is stored."""

    driver: str
    replicas: int = 1


@dataclass(frozen=True)
class Configuration:
    """Everything that the ConfigMap `network` says."""

    vault: VaultConfiguration
    nats: NatsConfiguration
    credentials: CredentialsConfiguration
    keys: KeysConfiguration
    webhook: WebhookConfiguration
    leaf: LeafConfiguration
    streams: StreamsConfiguration
    resync: timedelta
    mesh: MeshConfiguration = field(default_factory=MeshConfiguration)

    @property
    def deployed(self) -> frozenset[str]:
        """Names of the servers that the reconciler runs."""
        deployments = {names.VAULT_SERVER: self.vault.deployment, names.NATS_SERVER: self.nats.deployment}
        return frozenset(server for server, deployment in deployments.items() if deployment is not None)

    def deployment(self, server: str) -> ServerDeployment | None:
        """How the reconciler runs the server of this name; None when it does not."""
        return self.vault.deployment if server == names.VAULT_SERVER else self.nats.deployment

    def trusting(self, authorities: str) -> Configuration:
        """The same, where the servers that the reconciler runs are trusted by these authorities (PEM), too.

        They are known at run time only, because the reconciler makes them.
        """
        vault, nats = self.vault, self.nats
        if vault.deployment is not None:
            vault = replace(vault, server=replace(vault.server, ca_pem=_joined(vault.server.ca_pem, authorities)))
        if nats.deployment is not None:
            nats = replace(nats, ca_bundle=_joined(nats.ca_bundle, authorities))
        return replace(self, vault=vault, nats=nats)


def parse_configuration(data: Mapping[str, Any], namespace: str = names.CONTROLLER_NAMESPACE) -> Configuration:
    """Read the data of the ConfigMap; InvalidResource names the member that is wrong and says what to write.

    `namespace` is the ConfigMap's own, where the servers are that the reconciler runs; their authorities are not in it.
    """
    text = data.get(DATA_KEY)
    if not isinstance(text, str):
        raise InvalidResource(f"data.{DATA_KEY}", "is required: write the configuration as YAML under this key")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidResource(f"data.{DATA_KEY}", f"is not YAML: {_without_excerpt(error)}") from None
    if value is not None and not isinstance(value, dict):
        raise InvalidResource(f"data.{DATA_KEY}", "must be an object: write members such as vault: and nats:")
    fields = Fields(value or {}, "")
    vault, nats = _vault(fields.child("vault"), namespace), _nats(fields.child("nats"), namespace)
    configuration = Configuration(
        vault=vault,
        nats=nats,
        credentials=_credentials(fields.child("credentials")),
        keys=_keys(fields.child("keys")),
        webhook=_webhook(fields.child("webhook")),
        leaf=_leaf(fields.child("leaf")),
        streams=_streams(fields.child("streams")),
        resync=fields.duration("resync") or timedelta(minutes=10),
        mesh=read_mesh(fields.child("mesh"), nats.client_urls, _url_check(_NATS_SCHEMES)),
    )
    fields.closed()
    _check_times(configuration)
    return configuration


def _without_excerpt(error: yaml.YAMLError) -> str:
    """What is wrong and where. The error's own text repeats the line, which may be a URL with a password in it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return "it cannot be read"


def _vault(fields: Fields, namespace: str) -> VaultConfiguration:
    deployment = read_deployment(fields, _VAULT_DEFAULTS, _host)
    if deployment is None:
        address = _checked_url(fields, "address", ("https",))
    else:
        address = f"https://{names.server_host(names.VAULT_SERVER, namespace)}:{VAULT_PORT}"
    configuration = VaultConfiguration(
        server=VaultSettings(
            address=address,
            ca_pem=_ca_bundle(fields),
            auth_mount=fields.text("authMount", names.DEFAULT_AUTH_MOUNT),
            transit_mount=fields.text("transitMount", names.DEFAULT_TRANSIT_MOUNT),
            kv_mount=fields.text("kvMount", names.DEFAULT_KV_MOUNT),
            namespace=fields.text("namespace", ""),
            timeout_seconds=_VAULT_TIMEOUT_SECONDS,
        ),
        client_address=_checked_url(fields, "clientAddress", ("https",))
        if fields.optional("clientAddress")
        else address,
        audience=fields.text("audience", names.DEFAULT_AUDIENCE),
        deployment=deployment,
    )
    fields.closed()
    return configuration


def _nats(fields: Fields, namespace: str) -> NatsConfiguration:
    deployment, check = read_deployment(fields, _NATS_DEFAULTS, _host), _url_check(_NATS_SCHEMES)
    urls, leaf_urls = fields.texts("urls", check), fields.texts("leafUrls", check)
    if deployment is not None:
        host = names.server_host(names.NATS_SERVER, namespace)
        urls, leaf_urls = (f"tls://{host}:{NATS_PORT}",), leaf_urls or (f"tls://{host}:{NATS_LEAF_PORT}",)
    if not urls:
        raise InvalidResource(fields.path("urls"), "is required: write a list such as [tls://nats.example:4222]")
    configuration = NatsConfiguration(
        urls=urls,
        client_urls=fields.texts("clientUrls", check) or urls,
        leaf_urls=leaf_urls,
        ca_bundle=_ca_bundle(fields),
        deployment=deployment,
    )
    fields.closed()
    return configuration


def _credentials(fields: Fields) -> CredentialsConfiguration:
    configuration = CredentialsConfiguration(
        renew_every=fields.duration("renewEvery") or timedelta(hours=1),
        lifetime=fields.duration("lifetime") or timedelta(days=30),
    )
    fields.closed()
    return configuration


def _keys(fields: Fields) -> KeysConfiguration:
    configuration = KeysConfiguration(
        rotate_every=fields.duration("rotateEvery") or timedelta(days=90),
        overlap=fields.duration("overlap") or timedelta(days=31),
    )
    fields.closed()
    return configuration


def _webhook(fields: Fields) -> WebhookConfiguration:
    configuration = WebhookConfiguration(
        issue_certificate=fields.boolean("issueCertificate", True),
        hosts=tuple(_host(host) for host in fields.texts("hosts", _host)),
    )
    fields.closed()
    return configuration


def _leaf(fields: Fields) -> LeafConfiguration:
    configuration = LeafConfiguration(
        sidecar_image=fields.text("sidecarImage", names.SIDECAR_IMAGE),
        nats_image=fields.text("natsImage", names.NATS_IMAGE),
        image_pull_secrets=read_references(fields, "imagePullSecrets"),
    )
    fields.closed()
    return configuration


def _streams(fields: Fields) -> StreamsConfiguration:
    configuration = StreamsConfiguration(
        driver=fields.choice("driver", ("native", "nack"), "native"),
        replicas=fields.integer("replicas", 1, low=1, high=_MOST_REPLICAS),
    )
    fields.closed()
    return configuration


def _check_times(configuration: Configuration) -> None:
    """Rules that keep every credential usable until it was renewed: none may outlive its key."""
    credentials, keys = configuration.credentials, configuration.keys
    if credentials.renew_every * 3 > credentials.lifetime * 2:
        raise InvalidResource(
            "credentials.renewEvery",
            f"must be at most two thirds of credentials.lifetime ({_duration(credentials.lifetime)}): "
            "write a shorter one, so that a failed renewal can be repeated in time",
        )
    if keys.overlap <= credentials.lifetime:
        raise InvalidResource(
            "keys.overlap",
            f"must be longer than credentials.lifetime ({_duration(credentials.lifetime)}), "
            "so that no valid credential is refused because its key was rotated",
        )


def _joined(given: str | None, authorities: str) -> str:
    """Both bundles of certificates, each of which ends its last line."""
    return "".join(f"{bundle.strip()}\n" for bundle in (given, authorities) if bundle)


def _ca_bundle(fields: Fields) -> str | None:
    text = fields.optional("caBundle")
    if not text or not text.strip():
        return None
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidResource(
            fields.path("caBundle"), "is not a list of certificates in PEM: write -----BEGIN CERTIFICATE----- …"
        ) from error
    return text


def _checked_url(fields: Fields, name: str, schemes: tuple[str, ...]) -> str:
    value = fields.text(name)
    try:
        _url_check(schemes)(value)
    except ValueError as error:
        raise InvalidResource(fields.path(name), str(error)) from error
    return value.rstrip("/")


def _url_check(schemes: tuple[str, ...]) -> Callable[[str], None]:
    def check(value: str) -> None:
        url = urlsplit(value)
        example = f"write for example {schemes[0]}://host.example:{4222 if 'nats' in schemes else 8200}"
        if url.username or url.password:
            raise ValueError("credentials do not belong into a URL: leave them out")
        if url.scheme not in schemes or not url.hostname:
            raise ValueError(
                f"{value!r} is not a URL with {' or '.join(f'{scheme}://' for scheme in schemes)}: {example}"
            )
        try:
            _ = url.port
        except ValueError:
            raise ValueError(f"{value!r} has no valid port: {example}") from None

    return check


def _host(text: str) -> str:
    """A DNS name as it is, or an address in its usual form (so that it compares equal to the one in a certificate)."""
    try:
        return str(ip_address(text))
    except ValueError:
        if not _DNS_NAME.fullmatch(text):
            raise ValueError(f"{text!r} is neither a DNS name nor an IP address") from None
    return text


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    unit, size = next(
        (unit, size) for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0
    )
    return f"{seconds // size}{unit}"
