"""The controller of NATS as a process runs it, in a cluster whose nodes start the pods that it asks for."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
import yaml
from cryptography import x509

from edgefarm import names, pki
from edgefarm.nats.serverconfig import CLIENT_PORT
from edgefarm.nats.templates import PermissionTemplate
from localcluster.client import PODS, Client
from localcluster.kubernetes import ApiServer
from localcluster.stack import Authority
from reconciler.adapters.kube import KubeClient
from reconciler.adapters.nats import SystemClient
from reconciler.configuration import Configuration, parse_configuration
from reconciler.context import Context, Key, Registration
from reconciler.controllers.servers.nats import NatsServerController
from reconciler.informers import Informers
from reconciler.manager import Manager
from reconciler.metrics import Metrics
from reconciler.ports import CONFIGMAP, POD, SERVICE, SERVICE_ACCOUNT, STATEFUL_SET, Kind, NatsServers, Object
from reconciler.queue import WorkQueue
from reconciler.settings import read_settings
from tests.natskit import Connection, LocalAccount, LocalOperator

_LOG: structlog.stdlib.BoundLogger = structlog.get_logger()
_CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
#: Seconds for what takes some on a machine that is busy with other tests.
_WITHIN = 30.0


@dataclass
class Accepted:
    """What the process has accepted, and what the controller has told it (implements `context.Servers`)."""

    accepted: Configuration | None = None
    accepted_text: str = ""
    refusal: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    authorities: str = ""

    def server_problems(self) -> Mapping[str, str]:
        return self.problems

    def report(self, server: str, *, authorities: str, problem: str) -> None:
        self.problems[server] = problem
        self.authorities = authorities


class Hub:
    """Vault and NATS as the controller sees them: an operator whose keys are in memory, and the Service by its
    address, because tests are outside of the cluster's DNS."""

    def __init__(self, keys: LocalOperator, address: Callable[[], str]) -> None:
        self.keys = keys
        self.document: dict[str, Any] | None = {
            "operatorJwt": keys.token(),
            "systemAccount": keys.system.public,
            "systemAccountJwt": keys.system_token(),
        }
        self._address = address
        self._trusted: str | None = None
        self._clients: list[SystemClient] = []

    def follow(self, configuration: Configuration) -> None:
        if configuration.nats.ca_bundle != self._trusted or not self._clients:
            self._trusted = configuration.nats.ca_bundle
            url = f"tls://{self._address()}:{CLIENT_PORT}"
            self._clients.append(SystemClient([url], self.keys.system_credentials, ca_bundle=self._trusted))

    async def operator(self) -> Mapping[str, Any] | None:
        return self.document

    @property
    def servers(self) -> NatsServers:
        return self.client

    @property
    def client(self) -> SystemClient:
        """The reconciler's own client."""
        return self._clients[-1]

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


class Events:
    """Remembers Events as (object, reason, message)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append((about["metadata"]["name"], reason, message))

    warning = normal

    def reasons(self) -> set[str]:
        return {reason for _, reason, _ in self.seen}


class Installation:
    """One namespace with a NATS of its own."""

    def __init__(self, kube: KubeClient, namespace: str, kubeconfig: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self._kubeconfig = Path(kubeconfig)
        self.servers = Accepted()
        self.events = Events()
        self.informers = Informers(kube, log=_LOG)
        self.hub = Hub(LocalOperator(), self.address)
        settings = {
            "EDGEFARM_NAMESPACE": namespace,
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": kubeconfig,
            "EDGEFARM_VAULT_TOKEN_FILE": "unused",
        }
        self.context = Context(
            kube=kube,
            store=self.informers,
            configuration=lambda: None,
            vault=_Absent(),
            nats=_absent,
            jetstream=_absent,
            events=self.events,
            clock=lambda: datetime.now(UTC),
            settings=read_settings(settings),
            log=_LOG,
            servers=self.servers,
        )
        self.controller = NatsServerController(self.context, self.hub)
        self._queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop().call_later, random.random)
        self._manager = Manager(
            self.informers, self._queue, resync=lambda: timedelta(minutes=10), metrics=Metrics(), log=_LOG
        )
        controller = self.controller
        self._manager.register([Registration(controller, controller.watches(), always=(controller.key,))])

    @classmethod
    @asynccontextmanager
    async def running(cls, api: ApiServer, kube: KubeClient, namespace: str) -> AsyncIterator[Installation]:
        """The controller at work in a namespace, with the ServiceAccount and ConfigMap that the chart makes."""
        for kind, name in ((SERVICE_ACCOUNT, names.CONTROLLER_SERVICE_ACCOUNT), (CONFIGMAP, names.CONFIGMAP)):
            await kube.create(
                kind, {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": name, "namespace": namespace}}
            )
        made = cls(kube, namespace, str(api.kubeconfig))
        tasks = [asyncio.create_task(made.informers.run())]
        try:
            await made.informers.synced()
            tasks.append(asyncio.create_task(made._manager.run(1)))
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made.hub.close()

    def accept(self, **nats: Any) -> None:
        """Have the controller follow this `nats` section."""
        config = {"vault": {"address": "https://vault.example:8200"}, "nats": {"deploy": True, **nats}}
        self.servers.accepted = parse_configuration({"config.yaml": yaml.safe_dump(config)}, self.namespace)
        self._queue.add(self.controller.key)

    def address(self) -> str:
        """Of the Service."""
        store = self.informers(SERVICE, namespace=self.namespace, labels=f"{names.LABEL_SERVER}={names.NATS_SERVER}")
        service = store.get(self.namespace, names.NATS_SERVER)
        assert service is not None
        return str(service["spec"]["clusterIP"])

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"tls://{self.address()}:{CLIENT_PORT}"

    @property
    def authority(self) -> Authority:
        """By what clients verify the servers; it issues nothing."""
        return Authority(Path(), pki.KeyPair(self.servers.authorities.encode(), b""))

    async def account(self, name: str = "net") -> LocalAccount:
        """An account of the hub, with users of the role `all`."""
        account = self.hub.keys.account(name)
        account.scope("all", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
        await self.hub.client.push(account.token())
        return account

    async def connect(self, account: LocalAccount, **options: Any) -> Connection:
        """A client through the Service."""
        return await Connection.open(self.url, self.authority, account.user("all"), **options)

    def certificate(self, pod: Object, port: int) -> x509.Certificate:
        """What a pod shows on one of its ports: clients and leafs alike are told so after a greeting in plain text."""
        trust = ssl.create_default_context(cadata=self.servers.authorities)
        trust.check_hostname = False
        with socket.create_connection((pod["status"]["podIP"], port), timeout=10) as plain:
            greeting = b""
            while not greeting.endswith(b"\n"):
                greeting += plain.recv(1)
            with trust.wrap_socket(plain) as tls:
                return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")

    async def pods(self) -> dict[str, Object]:
        """The servers' pods that are ready."""
        pods, _ = await self.kube.list(POD, self.namespace)
        return {pod["metadata"]["name"]: pod for pod in pods if _is_ready(pod)}

    async def stateful_set(self) -> Object:
        found = await self.kube.get(STATEFUL_SET, self.namespace, names.NATS_SERVER)
        assert found is not None
        return found

    async def ready(self, replicas: int) -> dict[str, Object]:
        """The pods, when all are ready and the controller has said so."""

        async def reached() -> bool:
            return len(await self.pods()) == replicas and self.servers.problems.get(names.NATS_SERVER) == ""

        await self.until(reached, f"{replicas} ready servers; {self.servers.problems}")
        return await self.pods()

    async def volumes(self) -> set[str]:
        """Names of the claims."""
        return {claim["metadata"]["name"] for claim in (await self.kube.list(_CLAIM, self.namespace))[0]}

    async def lose_volume(self, pod: str) -> None:
        """Take a pod and its volume away at once, as with the disk of a node; both are made anew."""
        before = (await self.pods())[pod]["metadata"]["uid"]
        await self.kube.delete(_CLAIM, self.namespace, f"data-{pod}")
        async with Client.from_kubeconfig(self._kubeconfig) as client:
            await client.delete(PODS, pod, self.namespace, grace_seconds=0)

        async def replaced() -> bool:
            now = await self.pods()
            return pod in now and now[pod]["metadata"]["uid"] != before

        await self.until(replaced, f"another {pod}")

    async def loaded(self, before: str = "") -> str:
        """The digest of the configuration that all servers have loaded, when it is not that of `before`."""
        found: set[str] = set()

        async def reached() -> bool:
            found.clear()
            found.update(state.config for state in await self.hub.client.states())
            return len(found) == 1 and before not in found

        await self.until(reached, f"another configuration than {before} is loaded by all servers")
        return found.pop()

    async def told(self, reason: str) -> str:
        """The message of the Event for this reason, when there is one."""

        async def reached() -> bool:
            return reason in self.events.reasons()

        await self.until(reached, f"an Event {reason}")
        return next(message for _, given, message in self.events.seen if given == reason)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, within: float = _WITHIN) -> None:
        """Return when `condition()` holds; fail with `what` after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while not await condition():  # noqa: ASYNC110 (what is waited for is outside of this process)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not within {within:g} s: {what}; {self.events.seen}") from None


class _Absent:
    async def call(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the controller of NATS has a Vault of its own")


def _absent(*_: Any) -> Any:
    raise AssertionError("the controller of NATS has a hub of its own")


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )
