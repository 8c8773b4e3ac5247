"""Brings up the whole product as separate real processes: API server, OpenBao, NATS, nodes, reconciler, webhook."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from edgefarm import names
from edgefarm.vault import Vault, VaultSettings
from localcluster.chart import Values, objects, own_values, read_manifests
from localcluster.client import DEPLOYMENTS, Client, has_condition
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.node.spec import NodeSpec, default_nodes
from localcluster.process import LocalProcess, StartError, free_port
from localcluster.stack import UPLINK_HOST, Authority, NatsServer, OpenBao, write_private

ROOT: Final = Path(__file__).parents[1]
_REVIEWER: Final = "vault-reviewer"
_REVIEWER_MANIFESTS: Final = Path(__file__).parent / "manifests" / "reviewer.yaml"

#: Awaits one part of the work and tells the user about it.
Progress = Callable[[str, Awaitable[str]], Awaitable[None]]


@dataclass(frozen=True)
class PlatformOptions:
    """What differs between the demo, tests and benchmarks. `daprd`: the binary that sidecars run."""

    daprd: Path
    kubebuilder_assets: Path | None = None
    nodes: int = 1
    """How many plain nodes there are, where `node_specs` does not list them."""
    node_specs: Sequence[NodeSpec] = ()
    leafs: bool = False
    """Whether the hub listens for leaf nodes; the configuration then says where they find it and Vault."""
    uplinks: bool = False
    """Whether pods reach NATS and OpenBao through uplinks that can be cut for each node (`--uplink` of the nodes)."""
    renew_every: str = "1h"
    lifetime: str = "30d"
    keys: dict[str, str] = field(default_factory=dict)
    resync: str = "10m"
    server_host: str = "127.0.0.2"
    """Where OpenBao and NATS listen; not 127.0.0.1, which the node runner takes for the pod itself."""
    mesh: dict[str, Any] = field(default_factory=dict)


@dataclass
class Platform:
    """A running installation; an async context manager that leaves nothing behind."""

    folder: Path
    options: PlatformOptions
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)
    _uplinks: dict[str, str] = field(default_factory=dict)
    """Where pods see a server -> where it is; host and port each."""

    authority: Authority = field(init=False)
    api: ApiServer = field(init=False)
    kube: Client = field(init=False)
    bao: OpenBao = field(init=False)
    nats: NatsServer = field(init=False)
    nodes: LocalProcess = field(init=False)
    #: With the root token: what an administrator would look at Vault with.
    vault: Vault = field(init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._exit.aclose()

    @property
    def ca_bundle(self) -> str:
        """PEM text of the authority of OpenBao and NATS."""
        return self.authority.pem

    @property
    def vault_address(self) -> str:
        return self.bao.address

    @property
    def nats_url(self) -> str:
        return self.nats.url

    @property
    def nats_monitor(self) -> str:
        return self.nats.monitor

    @property
    def node_folder(self) -> Path:
        """Data of the node runner: volumes and logs of all pods."""
        return self.folder / "nodes"

    async def start_servers(self) -> str:
        """API server and OpenBao, with an account by which Vault reviews tokens."""
        self.authority = Authority.create(self.folder / "pki")
        self.api = start_api_server(self.folder / "kubernetes", assets=self.options.kubebuilder_assets)
        self._exit.callback(self.api.stop)
        self.start_openbao()
        self._exit.callback(lambda: self.bao.stop())
        self.vault = Vault(
            VaultSettings(self.bao.address, self.authority.pem),
            token=self.bao.root_token,
        )
        self._exit.callback(self.vault.close)
        self.kube = await self._exit.enter_async_context(Client.from_kubeconfig(self.api.kubeconfig))
        await self.kube.apply(read_manifests(_REVIEWER_MANIFESTS.read_text()))
        return f"{self.api.url} and {self.bao.address}"

    async def bootstrap(self) -> str:
        """What an administrator does once in Vault; then NATS starts with the configuration that this printed."""
        token = await self.token(_REVIEWER, names.CONTROLLER_NAMESPACE, audience=None, seconds=86_400)
        reviewer = self.folder / "reviewer-token"
        write_private(reviewer, token.encode())
        command = [sys.executable, "-m", "reconciler", "bootstrap"]
        command += ["--vault-addr", self.bao.address, "--vault-ca", str(self.bao.ca)]
        command += ["--kubernetes-host", self.api.url, "--kubernetes-ca", str(self.api.ca)]
        command += ["--reviewer-token-file", str(reviewer)]
        command += [
            "--nats-resolver-dir",
            str(self.folder / "nats" / "accounts"),
            "--nats-config",
            str(self._nats_auth),
        ]
        environment = {**os.environ, "VAULT_TOKEN": self.bao.root_token, "PYTHONPATH": str(ROOT)}
        process = LocalProcess.start("bootstrap", command, log=self.folder / "bootstrap.log", env=environment)
        if await asyncio.to_thread(process.wait, 60) != 0:
            raise StartError(f"bootstrap ended with {process.returncode}:\n{process.tail()}")
        self.start_nats()
        self._exit.callback(lambda: self.nats.stop())
        return f"keys, mounts and the role {names.CONTROLLER_ROLE} in Vault; NATS at {self.nats.url}"

    def start_openbao(self, port: int = 0) -> None:
        """Start OpenBao on its data; after `bao.stop()` give the old port, so that the others find it again."""
        self.bao = OpenBao.start(self.folder / "openbao", self.authority, host=self.options.server_host, port=port)

    def start_nats(self, port: int = 0) -> None:
        """Start NATS on its data; after `nats.stop()` give the old port (that for leaf nodes stays by itself)."""
        auth, leaf_port = self._nats_auth.read_text(), None
        if self.options.leafs:
            leaf_port = int(self.nats.leaf_url.rpartition(":")[2]) if port else 0
        self.nats = NatsServer.start(
            self.folder / "nats",
            self.authority,
            auth=auth,
            host=self.options.server_host,
            port=port,
            leaf_port=leaf_port,
        )

    def for_pods(self, url: str) -> str:
        """The URL at which pods reach a server: behind its uplink, where the options ask for uplinks."""
        if not self.options.uplinks:
            return url
        scheme, _, target = url.partition("://")
        listen = next((near for near, far in self._uplinks.items() if far == target), "")
        if not listen:
            listen = f"{UPLINK_HOST}:{free_port(UPLINK_HOST)}"
            self._uplinks[listen] = target
        return f"{scheme}://{listen}"

    @property
    def _nats_auth(self) -> Path:
        return self.folder / "nats-operator.conf"

    async def start_product(self) -> str:
        """The node runner, and what the chart makes; returns when its pods, reconciler and webhook, are available."""
        values = self._values()
        uplinks = [f"--uplink={listen}={target}" for listen, target in self._uplinks.items()]
        nodes = self.options.node_specs or default_nodes(self.options.nodes)
        self.nodes = start_nodes(self.api.kubeconfig, self.node_folder, nodes, uplinks)
        self._exit.callback(self.nodes.stop)
        await self.kube.apply(await asyncio.to_thread(objects, values))
        for name in ("network-controller", "network-webhook"):
            await self.kube.wait_for(
                DEPLOYMENTS, name, names.CONTROLLER_NAMESPACE, until=has_condition("Available"), timeout=60
            )
        return "Deployments network-controller and network-webhook are available"

    async def start(self, progress: Progress | None = None) -> None:
        """All of it, in order; `progress` is given each part's title and work."""
        for title, work in (
            ("start Kubernetes API and OpenBao", self.start_servers),
            ("bootstrap Vault, start NATS", self.bootstrap),
            ("start nodes, reconciler and webhook", self.start_product),
        ):
            if progress is None:
                await work()
            else:
                await progress(title, work())

    async def token(self, account: str, namespace: str, *, audience: str | None, seconds: int = 3600) -> str:
        """A token of a service account, as `kubectl create token` gets it."""
        return await self.kube.create_token(account, namespace, audience=audience, seconds=seconds)

    def _values(self) -> Values:
        options = self.options
        # An address of its own in 127/8, so that it never meets a pod's.
        webhook_host = f"127.{random.randint(64, 95)}.{random.randint(0, 255)}.1"  # noqa: S311 (no secret)
        webhook_port = free_port(webhook_host)
        servers: dict[str, Values] = {
            "vault": {"deploy": False, "address": self.bao.address, "caBundle": self.authority.pem},
            "nats": {"deploy": False, "urls": [self.nats.url], "caBundle": self.authority.pem},
        }
        if options.uplinks:
            servers["vault"]["clientAddress"] = self.for_pods(self.bao.address)
            servers["nats"]["clientUrls"] = [self.for_pods(self.nats.url)]
        if options.leafs:
            servers["nats"]["leafUrls"] = [self.for_pods(self.nats.leaf_url)]
        own = {
            **servers,
            "credentials": {"renewEvery": options.renew_every, "lifetime": options.lifetime},
            "keys": options.keys,
            "webhook": {
                # By URL: its pod has a loopback address, which a real API server refuses in Endpoints.
                "url": f"https://{webhook_host}:{webhook_port}/mutate",
                "listenAddress": webhook_host,
                "port": webhook_port,
                "replicas": 1,
                # No load balancer has to notice that one ends.
                "extraEnv": [{"name": "EDGEFARM_WEBHOOK_DRAIN", "value": "1s"}],
            },
            "mesh": options.mesh,
            "resync": options.resync,
        }
        return own_values(options.daprd, own)


def start_nodes(kubeconfig: Path, folder: Path, nodes: Sequence[NodeSpec], options: Sequence[str] = ()) -> LocalProcess:
    """A process with the workload controllers and these nodes, its data in `folder` and its log beside that."""
    command = [sys.executable, "-m", "localcluster.nodes", f"--kubeconfig={kubeconfig}", f"--data-dir={folder}"]
    command += [*(f"--node={node}" for node in nodes), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return LocalProcess.start("nodes", command, log=folder.with_suffix(".log"), env=environment)
