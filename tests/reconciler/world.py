"""A real world for controllers (API server, OpenBao, nats-server) and a reconciler in it whose calls can be broken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from edgefarm import names
from edgefarm.errors import Conflict, KubernetesRefused, KubernetesUnavailable
from edgefarm.nats import jwt
from edgefarm.nats.claims import user_claims
from edgefarm.nats.nkeys import KeyPair, generate_user
from edgefarm.vault import KubernetesAuth, TransitKey, Vault, VaultSettings
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.stack import Authority, NatsServer, OpenBao
from reconciler.adapters.jetstream import JetStreamPool
from reconciler.adapters.kube import KubeClient
from reconciler.adapters.nats import SystemClient
from reconciler.bootstrap import BootstrapResult, BootstrapSettings, bootstrap
from reconciler.configuration import Configuration, NatsConfiguration, VaultConfiguration
from reconciler.context import Context, Controller, Key, Registration, Result
from reconciler.controllers import edge_network, nack, network, pod_advisor, policy, stream, stream_sweep
from reconciler.desired.leaf_service import SELECTOR
from reconciler.desired.nack import SELECTOR as NACK_SELECTOR
from reconciler.informers import Informers
from reconciler.leaf_monitor import LeafMonitor
from reconciler.ports import (
    DAEMON_SET,
    EDGE_NETWORK,
    NACK_ACCOUNT,
    NACK_STREAM,
    NAMESPACE,
    NETWORK,
    NODE,
    POD,
    POLICY,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STREAM,
    Kind,
    LeafOnHub,
    LeafView,
    Object,
)
from reconciler.settings import read_settings
from reconciler.users import network_user, system_user
from reconciler.vault_session import VaultSession
from reconciler.watch import Source, Timing
from tests.natskit import Connection, Credentials, eventually
from tests.reconciler.followed import FollowedKube
from tests.reconciler.gate import Broken, Gate, GatedJetStream, GatedKube, GatedNats, GatedVault
from tests.reconciler.objects import configuration
from tests.vault.reviewer import TokenReviewer

CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
_LOG: structlog.stdlib.BoundLogger = structlog.get_logger()


#: The controllers that a test's reconciler runs.
MODULES = (network, policy, pod_advisor, edge_network, stream, stream_sweep, nack)
#: What their stores hold: kind, whether only in the controller namespace, and a label selector.
SOURCES = (
    (NETWORK, True, ""),
    (POLICY, False, ""),
    (EDGE_NETWORK, True, ""),
    (STREAM, False, ""),
    (NAMESPACE, False, ""),
    (SERVICE_ACCOUNT, False, ""),
    (NODE, False, ""),
    (DAEMON_SET, True, ""),
    (POD, True, f"{names.LABEL_TYPE}={names.TYPE_LEAF}"),
    (SERVICE, True, SELECTOR),
    (SECRET, True, SELECTOR),
    (NACK_STREAM, True, NACK_SELECTOR),
    (NACK_ACCOUNT, True, NACK_SELECTOR),
)


#: How often it is looked whether the stores have taken in what changed, before all lists are compared with them.
_LOOKS_FOR_CHANGES = 10
#: How often a store is looked at before the API server is asked again: it may have changed meanwhile.
_LOOKS_PER_LIST = 25
#: Seconds between looks for kinds that are not offered: two kinds, in every test, for the few that install them.
_ABSENT = 0.5
#: A label that no object has.
_NOTHING = "edgefarm.test/nothing"


@dataclass
class World:
    """The outside systems; each test uses names of its own."""

    folder: Path
    authority: Authority
    api: ApiServer
    openbao: OpenBao
    reviewer: TokenReviewer
    admin: Vault
    operator: BootstrapResult
    hub: NatsServer

    @classmethod
    def start(cls, folder: Path, authority: Authority, openbao: OpenBao) -> World:
        """Start what is not running yet, and bootstrap Vault in mounts of its own."""
        reviewer = TokenReviewer.start(authority)
        mount = f"world-{secrets.token_hex(3)}"
        settings = VaultSettings(
            address=openbao.address,
            ca_pem=authority.pem,
            auth_mount=f"{mount}-kubernetes",
            transit_mount=f"{mount}-transit",
            kv_mount=f"{mount}-kv",
        )
        admin = Vault(settings, token=openbao.root_token)
        operator = bootstrap(
            admin,
            BootstrapSettings(
                kubernetes=KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem),
                controller_namespace=names.CONTROLLER_NAMESPACE,
                controller_service_account="network-controller",
            ),
            now=datetime.now(UTC),
            random=lambda: secrets.token_hex(16),
        )
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        api = start_api_server(folder / "kubernetes", Path(assets) if assets else None)
        auth = operator.nats_config(str(folder / "hub" / "accounts"))
        hub = NatsServer.start(folder / "hub", authority, auth=auth, leaf_port=0)
        return cls(folder, authority, api, openbao, reviewer, admin, operator, hub)

    def stop(self) -> None:
        """End everything that `start` began."""
        self.hub.stop()
        self.api.stop()
        self.admin.close()
        self.reviewer.stop()

    def restart_hub(self) -> None:
        """Start the hub again where it was."""
        port, leaf_port = (int(url.rpartition(":")[2]) for url in (self.hub.url, self.hub.leaf_url))
        auth = self.operator.nats_config(str(self.folder / "hub" / "accounts"))
        self.hub = NatsServer.start(self.folder / "hub", self.authority, auth=auth, port=port, leaf_port=leaf_port)

    @property
    def configuration(self) -> Configuration:
        """What the ConfigMap would say about these systems."""
        return configuration(
            vault=VaultConfiguration(self.admin.settings, self.admin.settings.address, names.DEFAULT_AUDIENCE),
            nats=NatsConfiguration((self.hub.url,), (self.hub.url,), (self.hub.leaf_url,), self.authority.pem),
        )

    def credentials(self, network: str, namespace: str, account: str) -> Credentials:
        """What a sidecar of this service account would get: login, read, sign, and nothing else."""
        vault = Vault(self.admin.settings)
        try:
            vault.login(names.grant_role(network, namespace, account), self.reviewer.token(namespace, account))
            document = vault.read_document(names.access_document(network, namespace, account))
            assert document is not None
            return sign_user(vault, document)
        finally:
            vault.close()

    def connect(self, credentials: Credentials, **options: Any) -> Awaitable[Connection]:
        """A client of the hub."""
        return Connection.open(self.hub.url, self.authority, credentials, **options)

    def held(self, network: str) -> dict[str, Any]:
        """All that Vault holds for a network, without what differs from one run to the next."""
        vault = self.admin
        own = (names.account_key(network), names.controller_key(network))
        families = (names.policy_key_prefix(network), names.leaf_key_prefix(network))
        keys = [name for name in vault.keys() if name in own or name.startswith(families)]  # noqa: SIM118 (no dict)
        roles = [role for role in vault.roles() if role.startswith(names.grant_role_prefix(network))]
        prefix = names.vault_policy(names.grant_role_prefix(network))
        return {
            "keys": {name: sorted(_existing(vault.key(name)).versions) for name in keys},
            "roles": {name: vault.role(name) for name in roles},
            "policies": {name: vault.policy(name) for name in vault.policies() if name.startswith(prefix)},
            "documents": sorted(vault.list_documents(names.access_document_prefix(network))),
        }


def _existing(key: TransitKey | None) -> TransitKey:
    assert key is not None
    return key


def sign_user(
    vault: Vault, document: Mapping[str, Any], user: KeyPair | None = None, *, name: str = "test"
) -> Credentials:
    """User credentials as the access document asks for them."""
    user = user or generate_user()
    now = int(datetime.now(UTC).timestamp())
    claims = user_claims(
        name=name,
        subject=user.public,
        issuer=document["signingKey"],
        account=document["account"],
        jti=secrets.token_hex(8),
        issued_at=now,
        expires_at=now + document["lifetimeSeconds"],
    )
    data = jwt.signing_input(claims)
    return jwt.assemble(data, vault.sign(document["transitKey"], document["keyVersion"], data)), user.seed


class Events:
    """Remembers Events as (object, reason, message)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append((about["metadata"]["name"], reason, message))

    warning = normal


class Reconciler:
    """The controllers of one process, passed over by hand; its memory is gone with `restart`."""

    def __init__(
        self, world: World, kube: KubeClient, session: VaultSession, system: SystemClient, jetstream: JetStreamPool
    ) -> None:
        self.world = world
        self.system = system
        self.gate = Gate()
        self.events = Events()
        self.kube = kube
        self.ahead = timedelta(0)
        self.configuration: Configuration | None = world.configuration
        self._followed = FollowedKube(kube, SOURCES)
        self.informers = Informers(self._followed, log=_LOG, timing=Timing(absent=_ABSENT))
        settings = {
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": str(world.api.kubeconfig),
            "EDGEFARM_VAULT_TOKEN_FILE": "unused",
        }
        self.context = Context(
            kube=GatedKube(kube, self.gate),
            store=self.informers,
            configuration=lambda: self.configuration,
            vault=GatedVault(session, self.gate),
            nats=lambda: GatedNats(system, self.gate),
            jetstream=lambda network: GatedJetStream(jetstream.network(network), self.gate),
            leafs=lambda: self.monitor.view,
            events=self.events,
            clock=lambda: datetime.now(UTC) + self.ahead,
            settings=read_settings(settings),
            log=_LOG,
        )
        self.registrations: list[Registration] = []
        self.controllers: dict[str, Controller] = {}
        self.restart()
        self.woken: set[Key] = set()
        self._caught_up_at = ""
        self._listen()

    def restart(self) -> None:
        """Forget everything, as a new process would."""
        self.monitor = LeafMonitor(lambda: self.context.nats(), lambda: True, log=_LOG)
        self.monitor.add_handler(self._leafs_changed)
        self.registrations = [module.build(self.context) for module in MODULES]
        self.controllers = {each.controller.name: each.controller for each in self.registrations}

    async def see_leafs(self) -> LeafView:
        """Ask the hub for its leafs now; those that came or went wake whom they concern."""
        await self.monitor.look()
        return self.monitor.view

    def _leafs_changed(self, leafs: Sequence[LeafOnHub]) -> None:
        for registration in self.registrations:
            if registration.leafs is not None:
                self.woken.update(registration.leafs(leafs))

    def _listen(self) -> None:
        for module in MODULES:
            for watch in module.build(self.context).watches:
                informer = self.informers.informer(Source(watch.kind, watch.namespace, watch.labels, watch.fields))
                for index, indexer in watch.indexes.items():
                    informer.store.add_index(index, indexer)
                informer.add_handler(lambda old, new, watch=watch: self.woken.update(watch.mapper(old, new)))  # type: ignore[misc]

    async def once(self, controller: str, namespace: str, name: str) -> Result:
        """One pass over one key, with fresh stores."""
        await self.caught_up()
        return await self.controllers[controller].reconcile(Key(controller, namespace, name))

    async def killed_at(self, call: int | None, network: str) -> bool:
        """One pass that is killed before its `call`-th outside call, then a new process; False if there was none."""
        self.gate.reset()
        self.gate.fail_at = call
        try:
            await self.once("network", names.CONTROLLER_NAMESPACE, network)
        except Broken:
            return True
        else:
            return False
        finally:
            self.gate.fail_at = None
            self.restart()

    async def converge(self) -> None:
        """Pass over everything that was woken until nothing is; errors are for the caller."""
        await self.caught_up()
        while self.woken:
            keys, self.woken = self.woken, set()
            for key in sorted(keys, key=str):
                try:
                    await self.controllers[key.controller].reconcile(key)
                except Conflict:
                    self.woken.add(key)
            await self.caught_up()

    async def caught_up(self) -> None:
        """Return when the stores hold what the API server holds."""
        async with asyncio.timeout(10):
            # The version of a list, even of an empty one, is that of the whole cluster: while it stays, nothing has
            # changed anywhere.
            _, version = await self.kube.list(NODE, labels=_NOTHING)
            since, self._caught_up_at = self._caught_up_at, version
            for _ in range(_LOOKS_FOR_CHANGES):
                if self._followed.has_all(since, version):
                    return
                await asyncio.sleep(0.002)
            # The first time, and when somebody changed what no store here holds.
            for kind, ours, labels in SOURCES:
                namespace = names.CONTROLLER_NAMESPACE if ours else None
                await self._caught_up_with(kind, namespace, labels)

    async def _caught_up_with(self, kind: Kind, namespace: str | None, labels: str) -> None:
        store = self.informers(kind, labels=labels)
        while True:
            actual, offered = await self._actual(kind, namespace, labels)
            expected = sorted(map(_version, actual))
            # A look into the store costs next to nothing; a list costs both sides more than most passes do.
            for _ in range(_LOOKS_PER_LIST):
                if sorted(map(_version, store.list())) == expected and offered != bool(store.problem):
                    return
                await asyncio.sleep(0.002)

    async def _actual(self, kind: Kind, namespace: str | None, labels: str) -> tuple[list[Object], bool]:
        """What there is of a kind, and whether the kind is offered at all."""
        try:
            return (await self.kube.list(kind, namespace, labels=labels))[0], True
        except KubernetesRefused as error:
            if not kind.optional or error.status != 404:
                raise
            return [], False


def _version(obj: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"], metadata["resourceVersion"]


@contextlib.asynccontextmanager
async def running(world: World, folder: Path) -> AsyncIterator[Reconciler]:
    """A reconciler with its clients and informers."""
    token = folder / "vault-token"
    token.write_text(world.reviewer.token(names.CONTROLLER_NAMESPACE, "network-controller"))
    settings = read_settings(
        {
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": str(world.api.kubeconfig),
            "EDGEFARM_VAULT_TOKEN_FILE": str(token),
        }
    )
    kube = await KubeClient.connect(settings.kubernetes)
    session = VaultSession(Vault(world.admin.settings), token)

    async def user() -> tuple[str, str]:
        return await system_user(session, datetime.now(UTC))

    async def network_login(network: str) -> tuple[str, str]:
        return await network_user(session, network, datetime.now(UTC))

    system = SystemClient([world.hub.url], user, ca_bundle=world.authority.pem, timeout=2.0)
    jetstream = JetStreamPool([world.hub.url], network_login, ca_bundle=world.authority.pem)
    reconciler = Reconciler(world, kube, session, system, jetstream)
    informing = asyncio.create_task(reconciler.informers.run())
    try:
        await reconciler.informers.synced()
        yield reconciler
    finally:
        informing.cancel()
        await asyncio.gather(informing, return_exceptions=True)
        await jetstream.close()
        await system.close()
        await session.close()
        await kube.close()
        # Closing a TLS connection takes a round trip that aiohttp does not wait for.
        await eventually(lambda: not _is_connected(world.api.url), "all connections closed")


def _is_connected(url: str) -> bool:
    """Whether we have a connection to this server that is not closed; others may, such as a real API server itself."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    connections = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    established, close_wait = "01", "08"
    there = {entry[9] for entry in connections if entry[2].endswith(port) and entry[3] in (established, close_wait)}
    return bool(there & set(_own_sockets()))


def _own_sockets() -> Iterator[str]:
    """Inodes of this process's sockets."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")


async def install_definitions(kube: KubeClient, definitions: list[Object]) -> None:
    """Create the CRDs and the controller namespace, and wait until our kinds are served."""
    for definition in definitions:
        await _create(kube, CRD, definition)
    await make_namespace(kube, names.CONTROLLER_NAMESPACE)
    async with asyncio.timeout(10):
        while True:
            if all([await _is_served(kube, kind) for kind in (NETWORK, POLICY, EDGE_NETWORK, STREAM)]):
                return
            await asyncio.sleep(0.02)


async def make_namespace(kube: KubeClient, name: str) -> None:
    """Create a namespace that may exist."""
    await _create(kube, NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def _create(kube: KubeClient, kind: Kind, obj: Object) -> None:
    with contextlib.suppress(Conflict):
        await kube.create(kind, obj)


async def _is_served(kube: KubeClient, kind: Kind) -> bool:
    try:
        await kube.list(kind)
    except (KubernetesRefused, KubernetesUnavailable):
        return False
    return True
