"""The product as `helm install` brings it, OpenBao and NATS included, on a fresh localcluster."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from edgefarm import names
from edgefarm.vault import Vault, VaultSettings
from localcluster.chart import Values, merged, own_values, selector
from localcluster.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Client,
    Json,
    has_condition,
)
from localcluster.demo.helm.release import Charts, Release
from localcluster.demo.observer import eventually, get_text
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.node.mounts import MountNamespaces
from localcluster.node.spec import default_nodes
from localcluster.platform import Progress, start_nodes
from localcluster.process import LocalProcess, StartError

RELEASE: Final = "edgefarm-network"
_WEBHOOK_PORT: Final = 443
_UNPRIVILEGED_FROM: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NAMESPACE: Final = names.CONTROLLER_NAMESPACE
#: Seconds that a busy machine may take until a server or a Deployment is ready.
_PATIENCE: Final = 120


@dataclass(frozen=True)
class HelmOptions:
    """What differs between the demo and tests. `daprd`: the binary that sidecars run."""

    daprd: Path
    kubebuilder_assets: Path | None = None
    nodes: int = 2
    audit_log: Path | None = None
    """Where the API server writes what it was asked."""
    values: Values = field(default_factory=dict)
    """Merged over the demo's own; members that are maps are merged in turn."""


@dataclass(frozen=True)
class _Servers:
    """Where the installation's servers are found from outside of the cluster's pods, which have no cluster DNS."""

    ca_bundle: str
    vault_address: str
    nats_url: str
    nats_monitor: str


@dataclass
class HelmPlatform:
    """A cluster with the release; an async context manager that leaves nothing behind."""

    folder: Path
    options: HelmOptions
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)

    api: ApiServer = field(init=False)
    kube: Client = field(init=False)
    nodes: LocalProcess = field(init=False)
    release: Release = field(init=False)
    charts: Charts = field(init=False)
    #: With the reconciler's own rights: nobody has a root token of this OpenBao.
    vault: Vault = field(init=False)
    _servers: _Servers = field(init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._exit.aclose()

    @property
    def ca_bundle(self) -> str:
        """PEM text of the authority of OpenBao and NATS."""
        return self._servers.ca_bundle

    @property
    def vault_address(self) -> str:
        return self._servers.vault_address

    @property
    def nats_url(self) -> str:
        return self._servers.nats_url

    @property
    def nats_monitor(self) -> str:
        return self._servers.nats_monitor

    @property
    def values(self) -> Values:
        """Values of the release: the chart's defaults, but for short times and what stands in for images here."""
        own: Values = {
            "credentials": {"renewEvery": "2s", "lifetime": "1h"},
            "keys": {"rotateEvery": "90d", "overlap": "2h"},
        }
        return own_values(self.options.daprd, merged(own, self.options.values))

    async def start(self, progress: Progress | None = None) -> None:
        """Make the cluster, install the chart's previous version, and wait until everything runs."""
        for title, work in (
            ("start Kubernetes API and nodes", self.start_cluster),
            ("helm install, of the version before", self.install_previous),
            ("OpenBao is initialised, NATS runs", self.servers_are_ready),
            ("reconciler and webhook are available", self.product_is_ready),
        ):
            if progress is None:
                await work()
            else:
                await progress(title, work())

    async def start_cluster(self) -> str:
        """An API server that enforces rights, and nodes whose containers have cluster DNS."""
        options = self.options
        self.api = start_api_server(
            self.folder / "kubernetes", assets=options.kubebuilder_assets, audit_log=options.audit_log
        )
        self._exit.callback(self.api.stop)
        self.kube = await self._exit.enter_async_context(Client.from_kubeconfig(self.api.kubeconfig))
        nodes = default_nodes(options.nodes)
        self.nodes = start_nodes(self.api.kubeconfig, self.folder / "nodes", nodes, ["--cluster-dns"])
        self._exit.callback(self.nodes.stop)
        version = (await self.kube.request("GET", "/version"))["gitVersion"]
        self.charts = Charts.copy(self.folder / "charts", version)
        self.release = Release(self.api.kubeconfig, RELEASE, _NAMESPACE)
        return f"{self.api.url} ({version}), {len(nodes)} nodes"

    async def install_previous(self) -> str:
        """`helm install` of a chart that is one version older."""
        await self.release.install(self.charts.previous, self.values)
        return f"release {RELEASE} in namespace {_NAMESPACE}"

    async def servers_are_ready(self) -> str:
        """The reconciler has made both servers, and they are ready."""
        seen = []
        for name in (names.VAULT_SERVER, names.NATS_SERVER):
            stateful_set = await self.kube.wait_for(
                STATEFUL_SETS, name, _NAMESPACE, until=_all_ready, timeout=_PATIENCE
            )
            assert stateful_set is not None
            seen.append(f"{name} with {stateful_set['status']['readyReplicas']} replica(s)")
        return f"ready: {', '.join(seen)}"

    async def product_is_ready(self) -> str:
        """Both Deployments have all their replicas of the present version, and the servers let us look into them."""
        for name in ("network-controller", "network-webhook"):
            await self.kube.wait_for(DEPLOYMENTS, name, _NAMESPACE, until=_rolled_out, timeout=_PATIENCE)
        await eventually("the reconciler works with its servers", self._is_configured, within=_PATIENCE)
        await self._look_into_servers()
        return f"Deployments network-controller and network-webhook; OpenBao at {self.vault_address}"

    async def token(self, account: str, namespace: str, *, audience: str | None, seconds: int = 3600) -> str:
        """A token of a service account, as `kubectl create token` gets it."""
        return await self.kube.create_token(account, namespace, audience=audience, seconds=seconds)

    async def _is_configured(self) -> bool:
        """Whether the reconciler says so; it is available before, so that a standby may be so, too."""
        pods, _ = await self.kube.list(PODS, _NAMESPACE, labels=selector("controller"))
        said = [await asyncio.to_thread(get_text, f"http://{pod['status']['podIP']}:8080/readyz") for pod in pods]
        return any("leading: configured" in text for text in said)

    async def _look_into_servers(self) -> None:
        authorities = await self.kube.get(CONFIG_MAPS, names.SERVERS_CA, _NAMESPACE)
        vault, nats = [
            (await self.kube.get(SERVICES, name, _NAMESPACE))["spec"]["clusterIP"]
            for name in (names.VAULT_SERVER, names.NATS_SERVER)
        ]
        server = await self.kube.get(PODS, names.server_replica(names.NATS_SERVER, 0), _NAMESPACE)
        self._servers = _Servers(
            authorities["data"]["ca.crt"],
            f"https://{vault}:8200",
            f"tls://{nats}:4222",
            f"http://{server['status']['podIP']}:8222",
        )
        token = await self.token("network-controller", _NAMESPACE, audience=names.DEFAULT_AUDIENCE)
        self.vault = Vault(VaultSettings(self.vault_address, self.ca_bundle))
        self._exit.callback(self.vault.close)
        await asyncio.to_thread(self.vault.login, names.CONTROLLER_ROLE, token)


def missing() -> str | None:
    """What this machine lacks for such a platform, as one sentence."""
    try:
        asyncio.run(MountNamespaces.find())
    except StartError as error:
        return str(error)
    if os.environ.get("KUBEBUILDER_ASSETS") and os.geteuid() and int(_UNPRIVILEGED_FROM.read_text()) > _WEBHOOK_PORT:
        return f"a real API server asks the webhook at port {_WEBHOOK_PORT} of its Service, which needs root"
    return None


def _all_ready(stateful_set: Json | None) -> bool:
    if stateful_set is None:
        return False
    return bool(stateful_set.get("status", {}).get("readyReplicas", 0) == stateful_set["spec"]["replicas"])


def _rolled_out(deployment: Json | None) -> bool:
    """As `kubectl rollout status` decides."""
    if deployment is None or not has_condition("Available")(deployment):
        return False
    status, replicas = deployment["status"], deployment["spec"]["replicas"]
    counts = [status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [replicas] * 3
