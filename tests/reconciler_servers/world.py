"""A reconciler's controllers of servers on a real API server, with pods that are real processes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
import yaml

from edgefarm import names
from edgefarm.errors import EdgefarmError
from edgefarm.vault import Vault, VaultSettings
from localcluster.kubernetes import ApiServer
from reconciler.adapters.kube import KubeClient
from reconciler.configuration import DATA_KEY
from reconciler.configuration_source import ConfigurationSource
from reconciler.context import Context, Registration
from reconciler.controllers.servers import trust
from reconciler.controllers.servers.vault import VaultServerController
from reconciler.controllers.servers.vault_setup import VaultSetup
from reconciler.informers import Informers
from reconciler.metrics import Metrics
from reconciler.ports import NAMESPACE, SECRET, SERVICE_ACCOUNT, Object
from reconciler.settings import read_kubernetes_settings, read_settings
from reconciler.watch import Source
from tests.reconciler.world import Events
from tests.reconciler_servers.killer import KilledKube, Killer, killed_vault
from tests.reconciler_servers.node import Node
from tests.vault.reviewer import TokenReviewer

LOG: structlog.stdlib.BoundLogger = structlog.get_logger()
EXTERNAL_NATS = {"urls": ["tls://127.0.0.1:1"]}


@dataclass
class World:
    """One controller namespace, and a reconciler in it whose memory is gone with `restart`."""

    folder: Path
    namespace: str
    kube: KubeClient
    node: Node
    reviewer: TokenReviewer
    killer: Killer = field(default_factory=Killer)
    events: Events = field(default_factory=Events)
    ahead: timedelta = timedelta(0)
    deployment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.token_file = self.folder / "vault-token"
        self.token_file.write_text(self.reviewer.token(self.namespace, names.CONTROLLER_SERVICE_ACCOUNT))
        host, _, port = self.reviewer.url.removeprefix("https://").partition(":")
        self.settings = read_settings(
            {
                "EDGEFARM_NAMESPACE": self.namespace,
                "EDGEFARM_POD_NAME": "controller-0",
                "EDGEFARM_SERVICE_ACCOUNT_DIR": str(self.folder),
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": port,
                "EDGEFARM_VAULT_TOKEN_FILE": str(self.token_file),
            }
        )
        self.informers = Informers(self.kube, log=LOG)
        self.restart()
        for registration in self.registrations:
            for watch in registration.watches:
                self.informers.informer(Source(watch.kind, watch.namespace, watch.labels, watch.fields))

    def restart(self) -> None:
        """Forget everything, as a new process would."""
        self.source = ConfigurationSource(Metrics(), log=LOG, namespace=self.namespace)
        self.context = Context(
            kube=KilledKube(self.kube, self.killer),
            store=self.informers,
            configuration=lambda: self.source.current,
            vault=None,  # type: ignore[arg-type]  # only controllers of networks have a login
            nats=None,  # type: ignore[arg-type]
            jetstream=None,  # type: ignore[arg-type]
            events=self.events,
            clock=lambda: datetime.now(UTC) + self.ahead,
            settings=self.settings,
            log=LOG,
            servers=self.source,
        )
        controller = VaultServerController(self.context, VaultSetup(self.context, self.connect))
        self.registrations: list[Registration] = [trust.build(self.context), controller.registration()]
        self._configure()

    def connect(self, settings: VaultSettings) -> Vault:
        """A client of OpenBao, which is behind another address here."""
        return killed_vault(replace(settings, address=f"https://{self.node.serving()}:8200"), self.killer)

    def configure(self, **deployment: Any) -> None:
        """Write other members into the section `vault`."""
        self.deployment = {**self.deployment, **deployment}
        self._configure()

    def _configure(self) -> None:
        vault = {"deploy": True, "hosts": list(self.node.addresses), **self.deployment}
        text = yaml.safe_dump({"vault": vault, "nats": EXTERNAL_NATS})
        self.source.changed(None, {"data": {DATA_KEY: text}})

    async def pass_once(self) -> None:
        """One pass of every controller, as often as something else was in the way. Killed comes through."""
        for registration in self.registrations:
            for key in registration.always:
                with contextlib.suppress(EdgefarmError):
                    await registration.controller.reconcile(key)

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Pass until `condition()` holds."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self.node.check()
                    await self.pass_once()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.source.summary}\n{self.node.log()[-3000:]}") from None

    async def until_ready(self, seconds: float = 30) -> None:
        """Pass until the configuration is in force and nothing is lacking."""
        await self.until(lambda: self.source.current is not None and self.source.summary == "configured", seconds)

    async def secret(self, name: str) -> Mapping[str, str]:
        """The data of a Secret."""
        found = await self.kube.get(SECRET, self.namespace, name)
        assert found is not None, name
        return dict(found["data"])

    def vault(self, role: str) -> Vault:
        """A client that is logged in as the reconciler, under one of its roles."""
        assert self.source.current is not None
        vault = self.connect(self.source.current.vault.server)
        vault.login(role, self.token_file.read_text())
        return vault


@contextlib.asynccontextmanager
async def started(folder: Path, api: ApiServer, reviewer: TokenReviewer, **deployment: Any) -> AsyncIterator[World]:
    """A world in a namespace of its own."""
    kube = await KubeClient.connect(read_kubernetes_settings({"KUBECONFIG": str(api.kubeconfig)}))
    namespace = f"net-{secrets.token_hex(3)}"
    await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for account in (names.CONTROLLER_SERVICE_ACCOUNT, names.VAULT_SERVER):
        await kube.create(SERVICE_ACCOUNT, _account(account, namespace))
    account_folder = folder / "service-account"
    account_folder.mkdir()
    (account_folder / "token").write_text(reviewer.token(namespace, names.VAULT_SERVER))
    (account_folder / "ca.crt").write_text(reviewer.ca_pem)
    node = Node(folder / "node", kube, namespace, names.VAULT_SERVER, account_folder)
    world = World(folder, namespace, kube, node, reviewer, deployment=deployment)
    informing = asyncio.create_task(world.informers.run())
    try:
        await world.informers.synced()
        node.start()
        yield world
    finally:
        await node.stop()
        informing.cancel()
        await asyncio.gather(informing, return_exceptions=True)
        await kube.close()


def _account(name: str, namespace: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
