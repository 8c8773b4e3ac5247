"""What the tests here work with: a cluster with pods of agents, the reconciler's part for agents, and an agent."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from edgefarm import agentbus, names
from edgefarm.agentbus import Accepted, Denied, Registration, Reply
from edgefarm.agentparts import Answer, Request, RequestParts
from edgefarm.errors import Conflict
from edgefarm.nats import jwt, nkeys
from edgefarm.nats.claims import delete_claims
from edgefarm.vault import Vault
from localcluster.kubernetes import ApiServer
from reconciler import agent_admission
from reconciler.adapters.agents import BusPace
from reconciler.adapters.kube import KubeClient
from reconciler.adapters.nats import SystemClient
from reconciler.agent_service import AgentPace, AgentService
from reconciler.configuration import Configuration
from reconciler.context import Context, Result
from reconciler.controllers import agents_account
from reconciler.metrics import Metrics
from reconciler.ports import NODE, POD, SERVICE_ACCOUNT, NoAgents, Object
from reconciler.settings import read_settings
from reconciler.users import agents_user, system_user
from reconciler.vault_session import VaultSession
from tests.apiserver.rest import Rest, pod
from tests.natskit import Connection, Credentials, eventually
from tests.reconciler.gate import Broken, Gate, GatedNats, GatedVault
from tests.reconciler.world import Events, World, sign_user

NAMESPACE = names.CONTROLLER_NAMESPACE
_LOG: structlog.stdlib.BoundLogger = structlog.get_logger()

#: What an agent makes of a request.
Handler = Callable[[Request], Awaitable[Answer | None]]


@dataclass
class Cluster:
    """An API server in which one test makes nodes, pods and their tokens."""

    world: World
    kube: KubeClient
    prefix: str

    def node_name(self, name: str) -> str:
        """A node of this test."""
        return f"{self.prefix}-{name}"

    async def pod(self, node: str, *, account: str = "network-agent", namespace: str = NAMESPACE) -> Object:
        """A new pod on a node, which is made, too."""
        account_object = {"apiVersion": "v1", "kind": "ServiceAccount"}
        metadata = {"name": account, "namespace": namespace}
        node_object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.node_name(node)}}
        with contextlib.suppress(Conflict):
            await self.kube.create(SERVICE_ACCOUNT, {**account_object, "metadata": metadata})
        with contextlib.suppress(Conflict):
            await self.kube.create(NODE, node_object)
        name = f"{self.prefix}-{secrets.token_hex(3)}"
        body = pod(name, nodeName=self.node_name(node), serviceAccountName=account)
        body["metadata"]["namespace"] = namespace
        return await self.kube.create(POD, body)

    def token(self, pod: Object | None, *, audience: str = names.AGENT_AUDIENCE, account: str = "network-agent") -> str:
        """A token as the kubelet projects it into the pod; without a pod one that is bound to nothing."""
        spec: dict[str, Any] = {"audiences": [audience]}
        namespace = NAMESPACE
        if pod is not None:
            metadata = pod["metadata"]
            account, namespace = pod["spec"]["serviceAccountName"], metadata["namespace"]
            spec["boundObjectRef"] = {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(_rest(self.world.api).create(path, {"spec": spec})["status"]["token"])

    async def remove(self, pod: Object) -> None:
        """Delete a pod at once: no kubelet runs here that would end it."""
        metadata = pod["metadata"]
        path = POD.path(metadata["namespace"], metadata["name"])
        assert _rest(self.world.api).delete(path, {"gracePeriodSeconds": 0}).status == 200

    async def end(self, pod: Object) -> None:
        """Delete a pod, which goes on running for its grace period."""
        metadata = pod["metadata"]
        await self.kube.delete(POD, metadata["namespace"], metadata["name"])


def _rest(api: ApiServer) -> Rest:
    return Rest(api.url, api.ca, api.admin_token)


class Office:
    """The reconciler's part for agents: the controller of their account, and the service; a gate before Vault and
    the system account."""

    def __init__(self, world: World, kube: KubeClient, session: VaultSession, system: SystemClient) -> None:
        self.world = world
        self.gate = Gate()
        self.metrics = Metrics()
        self.told: list[str] = []
        self.kube = kube
        self._session = session
        mesh = replace(world.configuration.mesh, enabled=True, agent_urls=(world.hub.url,))
        self.configuration: Configuration = replace(world.configuration, mesh=mesh)
        settings = {"EDGEFARM_POD_NAME": "controller-0", "KUBECONFIG": "x", "EDGEFARM_VAULT_TOKEN_FILE": "unused"}

        def nothing(*_: object, **__: object) -> Any:
            raise AssertionError("nobody needs this here")

        self.context = Context(
            kube=kube,
            store=nothing,
            configuration=lambda: self.configuration,
            vault=GatedVault(session, self.gate),
            nats=lambda: GatedNats(system, self.gate),
            jetstream=nothing,
            events=Events(),
            clock=lambda: datetime.now(UTC),
            settings=read_settings(settings),
            log=_LOG,
            agents=NoAgents,
        )
        self.service = self.new_service()

    async def user(self) -> tuple[str, str]:
        """JWT and seed of the reconciler's user in the agents' account."""
        return await agents_user(self._session, datetime.now(UTC))

    def new_service(self, pace: AgentPace | None = None) -> AgentService:
        """The service of a process that has just started."""
        service = AgentService(
            agent_admission.Cluster(self.kube, self.kube, NAMESPACE),
            self.user,
            lambda: self.configuration,
            clock=lambda: datetime.now(UTC),
            metrics=self.metrics,
            log=_LOG,
            pace=pace or AgentPace(heartbeat=1, bus=BusPace(retry=0.1, travel=1.0)),
        )
        service.add_handler(self.told.extend)
        return service

    async def converge(self) -> Result:
        """One pass of the controller of a process that has just started."""
        controller = agents_account.AgentsAccountController(self.context)
        return await controller.reconcile(controller.key)

    async def killed_at(self, call: int) -> bool:
        """One pass that is killed before its `call`-th outside call; True when it ended before."""
        self.gate.reset()
        self.gate.fail_at = call
        try:
            await self.converge()
        except Broken:
            return False
        else:
            return True
        finally:
            self.gate.fail_at = None

    async def deletion_of(self, account: str) -> str:
        """A request to delete the account, as somebody else with the operator's key would make it."""
        key = names.OPERATOR_SIGNING_KEYS[0]
        now = int(datetime.now(UTC).timestamp())
        claims = delete_claims(
            accounts=[account], issuer=self.world.operator.signing_keys[0], jti=secrets.token_hex(8), issued_at=now
        )
        data = jwt.signing_input(claims)
        return jwt.assemble(data, await asyncio.to_thread(self.world.admin.sign, key, 1, data))

    def without_mesh(self) -> Configuration:
        """The configuration with the mesh switched off."""
        return replace(self.configuration, mesh=replace(self.configuration.mesh, enabled=False))

    def switch_on(self) -> None:
        """Have a mesh."""
        self.configuration = replace(self.configuration, mesh=replace(self.configuration.mesh, enabled=True))
        self.service.configuration_changed()

    async def switch_off(self) -> None:
        """Have no mesh any more."""
        self.configuration = self.without_mesh()
        self.service.configuration_changed()
        await self.converge()

    async def heard(self) -> None:
        """Return when agents are heard."""
        await eventually(lambda: self.service.bus.connected, "connected to the agents' account", 10)

    def held(self) -> dict[str, Any]:
        """All that Vault holds for agents."""
        vault = self.world.admin
        territory = agents_account.TERRITORY
        keys = [name for name in vault.keys() if territory.has_key(name)]  # noqa: SIM118 (no dict)
        roles = [name for name in vault.roles() if name.startswith(territory.role_prefix)]
        prefix = names.vault_policy(territory.role_prefix)
        return {
            "keys": {name: sorted(key.versions) for name in keys if (key := vault.key(name)) is not None},
            "roles": roles,
            "policies": [name for name in vault.policies() if name.startswith(prefix)],
            "documents": vault.list_documents(territory.folder),
        }

    def document(self, account: str = "network-agent") -> dict[str, Any]:
        """The access document of a service account."""
        document = self.world.admin.read_document(names.agent_access_document(NAMESPACE, account))
        assert document is not None
        return document

    def credentials(self, user: nkeys.KeyPair, account: str = "network-agent") -> Credentials:
        """What an agent gets with its own nkey: login, read, sign, and nothing else."""
        vault = Vault(self.world.admin.settings)
        try:
            vault.login(names.agent_role(account), self.world.reviewer.token(NAMESPACE, account))
            document = vault.read_document(names.agent_access_document(NAMESPACE, account))
            assert document is not None
            return sign_user(vault, document, user)
        finally:
            vault.close()

    @contextlib.asynccontextmanager
    async def agent(self, token: str = "", handler: Handler | None = None) -> AsyncIterator[Agent]:
        """An agent that is logged in to NATS, but not registered; `token` proves its node."""
        user = nkeys.generate_user()
        credentials = await asyncio.to_thread(self.credentials, user)
        async with await Connection.open(self.world.hub.url, self.world.authority, credentials) as connection:
            agent = Agent(user.public, connection, token, handler)
            await connection.client.subscribe(agentbus.to_agent(user.public), cb=agent.receive)
            await connection.settle()
            yield agent


class Agent:
    """An agent that speaks the bus's protocol as docs/mesh.md has it, and whose host is a function."""

    def __init__(self, nkey: str, connection: Connection, token: str, handler: Handler | None) -> None:
        self.nkey = nkey
        self.connection = connection
        self.token = token
        self.requests: list[Request] = []
        self._handler = handler
        self._parts = RequestParts()
        self._replies: dict[str, asyncio.Future[Reply]] = {}

    async def register(
        self, *, new: bool = True, containers: bool = False, token: str | None = None, within: float = 10
    ) -> Reply:
        """Register, and return what the reconciler says; TimeoutError when it says nothing `within` seconds."""
        shown = self.token if token is None else token
        registration = Registration(shown, "host", "test/1", network=True, containers=containers, new=new)
        return await self.say(agentbus.register_subject(self.nkey), registration.encode(), within)

    async def heartbeat(self) -> Reply:
        """Send one heartbeat."""
        return await self.say(agentbus.heartbeat_subject(self.nkey), b"{}")

    async def say(self, subject: str, data: bytes, within: float = 10) -> Reply:
        """Send something and wait for the reply; TimeoutError without one."""
        identifier = secrets.token_hex(8)
        future = self._replies[identifier] = asyncio.get_running_loop().create_future()
        reply = agentbus.reply_subject(self.nkey, identifier)
        await self.connection.client.publish(subject, data, reply=reply)
        async with asyncio.timeout(within):
            answered: Reply = await future
        return answered

    async def answer(self, identifier: str, answer: Answer) -> None:
        """Answer a request."""
        for message in answer.messages():
            subject = agentbus.answer_subject(self.nkey, identifier)
            await self.connection.client.publish(subject, message.payload, headers=message.headers)

    async def receive(self, message: Any) -> None:
        """What NATS brings."""
        address = agentbus.parse_subject(message.subject)
        if address.kind == "reply":
            self._replies.pop(address.id).set_result(agentbus.decode_reply(message.data))
            return
        request = self._parts.add(message.headers, message.data, asyncio.get_running_loop().time())
        if request is not None:
            self.requests.append(request)
            answer = None if self._handler is None else await self._handler(request)
            if answer is not None:
                await self.answer(request.id, answer)


def accepted(reply: Reply) -> str:
    """The device of a reply that must be a yes."""
    assert isinstance(reply, Accepted), reply
    return reply.device


def denied(reply: Reply) -> str:
    """The reason of a reply that must be a no."""
    assert isinstance(reply, Denied), reply
    return reply.reason


@contextlib.asynccontextmanager
async def running_office(world: World, kube: KubeClient, folder: Path) -> AsyncIterator[Office]:
    """The reconciler's part for agents with its clients."""
    token = folder / "vault-token"
    token.write_text(world.reviewer.token(NAMESPACE, "network-controller"))
    session = VaultSession(Vault(world.admin.settings), token)

    async def user() -> tuple[str, str]:
        return await system_user(session, datetime.now(UTC))

    system = SystemClient([world.hub.url], user, ca_bundle=world.authority.pem, timeout=2.0)
    try:
        yield Office(world, kube, session, system)
    finally:
        await system.close()
        await session.close()
