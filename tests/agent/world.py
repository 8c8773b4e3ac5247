"""What surrounds an agent, all real but the reconciler: OpenBao with the grant, nats-server with the account AGENTS."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg

from agent.bus import Host, Services
from agent.credentials import Login
from agent.executor import Executor, NetworkSettings
from agent.metrics import Metrics
from agent.presence import Presence
from agent.service import Agent, Pace
from agent.settings import Identity
from edgefarm import agentbus, names
from edgefarm.agentbus import Accepted, Denied, Network, Registration, Reply
from edgefarm.agentparts import Answer, AnswerParts, Request
from edgefarm.grants import grant_policy
from edgefarm.nats import nkeys
from edgefarm.nats.claims import ScopedKey, account_claims
from edgefarm.nats.nkeys import Prefix, encode_public
from edgefarm.nats.templates import AGENT_TEMPLATE
from edgefarm.vault import Role, Vault
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Credentials, Hub, LocalAccount, eventually, jti, make_user, sign
from tests.vault.reviewer import TokenReviewer

NAMESPACE = names.CONTROLLER_NAMESPACE
SERVICE_ACCOUNT = names.AGENT_SERVICE_ACCOUNTS[names.ROLE_EDGE]
PACE = Pace(first=0.1, most=0.5)
_issued = itertools.count(int(time.time()) - 50_000)


class Controller:
    """The reconciler's side, as much of it as an agent sees. `answer` decides about registrations."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.registrations: list[tuple[str, Registration]] = []
        self.heartbeats: list[str] = []
        self.known: set[str] = set()
        #: Whoever has registered is unknown again at once.
        self.forgetful = False
        self.decide: Callable[[Registration], Reply | None] = lambda _: Accepted("edge-1", 1)
        self._pending: dict[str, tuple[AnswerParts, asyncio.Future[Answer]]] = {}

    @classmethod
    async def open(cls, hub: Hub, credentials: Credentials) -> Controller:
        """Connect and listen."""
        controller = cls(await Connection.open(hub.url, hub.authority, credentials))
        await controller.connection.client.subscribe(agentbus.FROM_ALL_AGENTS, cb=controller._receive)
        await controller.connection.settle()
        return controller

    async def close(self) -> None:
        await self.connection.client.close()

    @property
    def nkey(self) -> str:
        """Of the latest registration."""
        return self.registrations[-1][0]

    async def registered(self, count: int = 1, within: float = 20) -> None:
        """Wait for so many registrations."""
        await eventually(lambda: len(self.registrations) >= count, f"{count} registrations", within)

    async def request(
        self, data: bytes, *, seconds: float = 30, network: Network = Network.HOST, identifier: str = "", nkey: str = ""
    ) -> Answer:
        """Ask the agent, and put its answer together."""
        request = Request(identifier or secrets.token_hex(8), seconds, network, data)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[request.id] = (AnswerParts(), future)
        await self.send(request, nkey)
        return await asyncio.wait_for(future, seconds + 5)

    async def send(self, request: Request, nkey: str = "") -> None:
        """Publish a request."""
        nkey = nkey or self.nkey
        for message in request.messages():
            await self.connection.client.publish(
                agentbus.request_subject(nkey),
                message.payload,
                reply=agentbus.answer_subject(nkey, request.id),
                headers=message.headers,
            )

    async def _receive(self, message: Msg) -> None:
        address = agentbus.parse_subject(message.subject)
        reply: Reply | None
        match address.kind:
            case "register":
                registration = Registration.decode(message.data)
                reply = self.decide(registration)
                self.registrations.append((address.nkey, registration))
                if isinstance(reply, Accepted) and not self.forgetful:
                    self.known.add(address.nkey)
            case "heartbeat":
                self.heartbeats.append(address.nkey)
                known = address.nkey in self.known
                reply = Accepted("edge-1", 1) if known else Denied(agentbus.REASON_UNKNOWN, "Not registered.")
            case _:
                parts, future = self._pending[address.id]
                answer = parts.add(message.headers, message.data)
                if answer is not None and not future.done():
                    future.set_result(answer)
                return
        if reply is not None:
            await self.connection.client.publish(message.reply, reply.encode())


@dataclass
class World:
    """One Vault and one hub with the account AGENTS, shared by the tests of a process."""

    vault: Vault
    reviewer: TokenReviewer
    hub: Hub
    system: SystemClient
    account: LocalAccount
    authority: Authority

    async def push(self) -> None:
        """Send the account, with the newest version of the agents' key, to the server."""
        keys = [ScopedKey(key.public, role, template) for role, (key, template) in self.account.keys.items()]
        body = account_claims(
            name=names.AGENTS_ACCOUNT,
            account=self.account.public,
            jti=jti(),
            issued_at=next(_issued),
            issuer=self.hub.operator.signing.public,
            limits=self.account.limits,
            signing_keys=[*keys, ScopedKey(self.signing_key(), "agent", AGENT_TEMPLATE)],
        )
        await self.system.push(sign(body, self.hub.operator.signing))

    def signing_key(self) -> str:
        """Public key of the agents' scoped key in Vault."""
        return encode_public(Prefix.ACCOUNT, self.vault.ensure_key(names.AGENTS_KEY).latest.public_key)

    def grant(self, **document: Any) -> None:
        """Do what the reconciler does for the agents' service account; `document` overrides the access document."""
        role = names.agent_role(SERVICE_ACCOUNT)
        path = names.agent_access_document(NAMESPACE, SERVICE_ACCOUNT)
        key = self.vault.ensure_key(names.AGENTS_KEY)
        self.vault.write_policy(names.vault_policy(role), grant_policy(self.vault.settings, names.AGENTS_KEY, path))
        members = {
            "version": 1,
            "network": names.AGENTS_ACCOUNT,
            "policy": names.ROLE_EDGE,
            "account": self.account.public,
            "signingKey": self.signing_key(),
            "transitKey": names.AGENTS_KEY,
            "keyVersion": key.latest_version,
            "hub": [self.hub.url],
            "leaf": [],
            "renewEverySeconds": 3600,
            "lifetimeSeconds": 86400,
        }
        self.vault.write_document(path, {**members, **document})
        self.vault.write_role(
            Role(
                role,
                namespace=NAMESPACE,
                service_account=SERVICE_ACCOUNT,
                audience=names.DEFAULT_AUDIENCE,
                policies=(names.vault_policy(role),),
                token_ttl=600,
            )
        )

    def agent_user(self, lifetime: int = 3600) -> tuple[str, Credentials]:
        """A user of an agent, signed in memory by a key beside that in Vault: its nkey and its credentials."""
        credentials = make_user(self.account.public, self.account.keys["spare"][0], lifetime=lifetime)
        raw = nkeys.decode_seed(credentials[1])[1]
        public = Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
        return encode_public(Prefix.USER, public), credentials

    def controller_user(self) -> Credentials:
        """A user with the reconciler's rights."""
        return self.account.user("controller")

    def host(self, folder: Path, network: NetworkSettings | None = None, **vault: Any) -> EdgeHost:
        """A host whose agent is not running yet."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.reviewer.token(NAMESPACE, SERVICE_ACCOUNT))
        (folder / "agent-token").write_text("proof-1")
        network = network or NetworkSettings(enabled=True, arguments=("cat",))
        settings = replace(self.vault.settings, timeout_seconds=5, **vault)
        return EdgeHost(folder, self.authority, Vault(settings), network)


@dataclass
class EdgeHost:
    """The folder of one host, and its agent in this process while it runs."""

    folder: Path
    authority: Authority
    vault: Vault
    network: NetworkSettings
    clock: Callable[[], float] = time.time
    lines: list[dict[str, Any]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    presence: Presence = field(init=False)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def start(self) -> EdgeHost:
        """Start the agent."""
        log = structlog.wrap_logger(None, processors=[self._log], wrapper_class=structlog.stdlib.BoundLogger)
        self.presence = Presence(self.metrics, log=log)
        identity = Identity(NAMESPACE, SERVICE_ACCOUNT, "edge-1", self.folder / "token", self.folder / "agent-token")
        host = Host("edge-1.example", "agent test", identity.proof_token)
        services = Services(host, Executor(self.network, {}), self.presence, self.metrics, log)
        tls = ssl.create_default_context(cadata=self.authority.pem)
        agent = Agent(Login(self.vault, identity), tls, services, clock=lambda: self.clock(), pace=PACE)
        self._task = asyncio.create_task(agent.run(self._stop))
        return self

    async def stop(self) -> None:
        """SIGTERM, as far as the agent sees it."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait_for(self._task, 15)
        self.vault.close()

    async def until(self, sentence: str, *, ready: bool = False, within: float = 20) -> None:
        """Wait until the agent says this of its standing."""
        try:
            await eventually(lambda: sentence in self.presence.sentence and self.presence.ready is ready, "", within)
        except AssertionError:
            raise AssertionError(f"{sentence!r} is not in {self.presence.sentence!r}; {self.lines}") from None

    def _log(self, _logger: object, method: str, event: Any) -> str:
        self.lines.append({"level": method, **event})
        raise structlog.DropEvent


@dataclass
class AgentProcess:
    """An agent as a program of its own."""

    folder: Path
    health_port: int
    process: LocalProcess

    @classmethod
    def start(cls, world: World, host: EdgeHost, config: str, **environment: str) -> AgentProcess:
        """Start `python -m agent` with the tokens of a host."""
        (host.folder / "agent.yaml").write_text(config)
        settings, port = world.vault.settings, free_port()
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/",
            "EDGEFARM_NODE_NAME": "edge-1",
            "EDGEFARM_VAULT_ADDR": settings.address,
            "EDGEFARM_VAULT_AUTH_MOUNT": settings.auth_mount,
            "EDGEFARM_VAULT_TRANSIT_MOUNT": settings.transit_mount,
            "EDGEFARM_VAULT_KV_MOUNT": settings.kv_mount,
            "EDGEFARM_CA_BUNDLE": world.authority.pem,
            "EDGEFARM_TOKEN_FILE": str(host.folder / "token"),
            "EDGEFARM_AGENT_TOKEN_FILE": str(host.folder / "agent-token"),
            "EDGEFARM_AGENT_CONFIG": str(host.folder / "agent.yaml"),
            "EDGEFARM_HEALTH_PORT": str(port),
            **environment,
        }
        command = [sys.executable, "-m", "agent"]
        log, root = host.folder / "agent.log", Path(__file__).parents[2]
        return cls(host.folder, port, LocalProcess.start("agent", command, log=log, env=variables, cwd=root))

    def get(self, path: str) -> tuple[int, str]:
        """A page of the health port; status 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def log(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in (self.folder / "agent.log").read_text().splitlines() if line[:1] == "{"]
