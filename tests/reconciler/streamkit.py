"""What the tests of Streams share: making them, leafs and their pods, and asking the servers what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.errors import DomainUnreachable
from edgefarm.vault import Vault
from reconciler.adapters.jetstream import JetStreamPool
from reconciler.context import Key
from reconciler.ports import EDGE_NETWORK, POD, STREAM, Object
from reconciler.users import network_user
from reconciler.vault_session import VaultSession
from tests.leafkit import Leaf
from tests.natskit import Connection, Credentials
from tests.reconciler.conftest import Site
from tests.reconciler.gate import Broken
from tests.reconciler.leafs import make_leaf

LIMITS = {"filestorage": "10M", "inmemorystorage": "1M"}
NAMESPACE = names.CONTROLLER_NAMESPACE


@dataclass
class Streams:
    """A test's network with its Streams, EdgeNetworks and leafs."""

    site: Site
    pool: JetStreamPool
    work: Path
    leafs: dict[str, Leaf] = field(default_factory=dict)

    # -- objects -----------------------------------------------------------------------------------------------------

    async def make(self, called: str = "readings", /, *, namespace: str | None = None, **spec: Any) -> Object:
        """Create a main stream READINGS of `readings.>`, unless `spec` says something else."""
        whole = {"name": called.upper(), "location": "main", **spec}
        if "link" not in whole:
            whole.setdefault("subjects", [f"{called}.>"])
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Stream",
            "metadata": {"name": called, "namespace": namespace or self.site.factory},
            "spec": whole,
        }
        return await self.site.reconciler.kube.create(STREAM, body)

    async def edit(self, called: str = "readings", /, **spec: Any) -> None:
        await self.site.edit(STREAM, called, spec=spec)

    async def delete(self, name: str = "readings") -> None:
        await self.site.delete(STREAM, name)

    async def allow_loss(self, name: str = "readings") -> None:
        await self.site.edit(STREAM, name, metadata={"annotations": {names.ANNOTATION_ALLOW_DATA_LOSS: "true"}})

    async def make_edge(self, name: str, **spec: Any) -> str:
        """Create an EdgeNetwork; its full name."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "EdgeNetwork",
            "metadata": {"name": f"{name}-{self.site.network}", "namespace": NAMESPACE},
            "spec": {
                "network": self.site.network,
                "nodeSelector": {"site": f"{name}-{self.site.network}"},
                "limits": LIMITS,
                **spec,
            },
        }
        await self.site.reconciler.kube.create(EDGE_NETWORK, body)
        return str(body["metadata"]["name"])

    def node(self, name: str) -> str:
        return f"{name}-{self.site.network}"

    def domain(self, name: str) -> str:
        """JetStream domain of the leaf on a node."""
        return names.leaf_domain(self.site.network, self.node(name))

    async def add_pod(self, name: str, edge: str) -> None:
        """Create the pod of a leaf, as an EdgeNetwork's DaemonSet does it."""
        labels = {
            names.LABEL_OF_NETWORK: self.site.network,
            names.LABEL_TYPE: names.TYPE_LEAF,
            names.LABEL_EDGE_NETWORK: edge,
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"leaf-{self.node(name)}", "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "nodeName": self.node(name),
                "serviceAccountName": names.leaf_workload(edge),
                "terminationGracePeriodSeconds": 0,  # there is no kubelet that would confirm its end
                "containers": [{"name": "nats", "image": "nats"}],
            },
        }
        await self.site.reconciler.kube.create(POD, body)

    async def remove_pod(self, name: str) -> None:
        await self.site.reconciler.kube.delete(POD, NAMESPACE, f"leaf-{self.node(name)}")

    async def start_leaf(self, name: str, edge: str) -> Leaf:
        """Start the leaf on a node and wait until the hub hears of it."""
        if name not in self.leafs:
            self.leafs[name] = await self._prepared_leaf(name, edge)
        leaf = self.leafs[name].start()
        await leaf.until_connected()
        await self.until(lambda: self.is_reachable(name), f"domain of {name} is reachable")
        await self.site.reconciler.see_leafs()
        return leaf

    async def _prepared_leaf(self, name: str, edge: str) -> Leaf:
        leaf = make_leaf(self.site, self.work / name, edge, self.node(name))
        (answer,) = await self.site.reconciler.system.lookup(leaf.server.uplink.account)
        assert answer.jwt is not None
        leaf.remember(answer.jwt)
        return leaf

    async def stop_leaf(self, name: str) -> None:
        """Stop the leaf on a node and wait until the hub has noticed."""
        self.leafs[name].stop()
        await self.until(lambda: self.is_away(name), f"domain of {name} is away")
        await self.site.reconciler.see_leafs()

    # -- passes ------------------------------------------------------------------------------------------------------

    async def once(self, name: str = "readings") -> None:
        await self.site.reconciler.once("stream", self.site.factory, name)

    async def writes(self, name: str = "readings") -> list[str]:
        """What one more pass writes."""
        self.site.reconciler.gate.reset()
        await self.once(name)
        return self.site.reconciler.gate.writes

    async def killed_at(self, call: int, name: str = "readings") -> bool:
        """One pass that is killed before its `call`-th outside call, then a new process; False if there was none."""
        gate = self.site.reconciler.gate
        gate.reset()
        gate.fail_at = call
        try:
            await self.once(name)
        except Broken:
            return True
        else:
            return False
        finally:
            gate.fail_at = None
            self.site.reconciler.restart()

    async def settle(self) -> None:
        """Pass until all Streams have been seen on all nodes whose leafs run.

        A changed edge stream changes what leafs may receive, and the hub has them connect again for that.
        """
        await self.until(self._is_settled, "all running leafs seen by all Streams")

    async def admit(self) -> None:
        """Give the leafs what the Streams need that there are now; return when they are back.

        They connect again for it. A server that made a link meanwhile would try that again half a minute later only.
        """
        await self.site.reconciler.once("network", NAMESPACE, self.site.network)
        for name in self.leafs:
            await self.until(partial(self.is_reachable, name), f"domain of {name} is reachable again")

    async def _is_settled(self) -> bool:
        await self.site.reconciler.converge()
        await self.site.reconciler.see_leafs()
        running = {self.domain(name) for name, leaf in self.leafs.items() if leaf.process is not None}
        for stream in (await self.site.reconciler.kube.list(STREAM))[0]:
            status, metadata = stream.get("status") or {}, stream["metadata"]
            missed = {entry["domain"] for entry in status.get("locations") or () if entry["state"] == "Unreachable"}
            if status.get("network") == self.site.network and missed & running:
                # As a process does after a while, where the leaf is connected but its domain was not there yet.
                self.site.reconciler.woken.add(Key("stream", metadata["namespace"], metadata["name"]))
        return not self.site.reconciler.woken

    async def sweep(self, domain: str) -> None:
        """One pass that sweeps a domain."""
        await self.site.reconciler.caught_up()
        sweeper = self.site.reconciler.controllers["stream-sweep"]
        await sweeper.reconcile(Key("stream-sweep", self.site.network, domain))

    # -- what is there -----------------------------------------------------------------------------------------------

    async def status(self, name: str = "readings") -> Object:
        obj = await self.site.get(STREAM, name)
        assert obj is not None
        found = obj["status"]
        assert isinstance(found, dict)
        return found

    async def states(self, name: str = "readings") -> dict[str, str]:
        """The states in the status, by domain."""
        return {entry["domain"]: entry["state"] for entry in (await self.status(name)).get("locations") or ()}

    async def condition(self, type_: str = "Ready", name: str = "readings") -> tuple[str, str, str]:
        return await self.site.condition(STREAM, name, type_)

    async def info(self, stream: str = "READINGS", domain: str = names.MAIN_DOMAIN) -> Object | None:
        """What the server says of a stream; None when there is none."""
        answer = await self.pool.network(self.site.network).request(domain, f"STREAM.INFO.{stream}")
        return None if answer.error_code else dict(answer.body)

    async def config(self, stream: str = "READINGS", domain: str = names.MAIN_DOMAIN) -> Object:
        found = await self.info(stream, domain)
        assert found is not None
        config = found["config"]
        assert isinstance(config, dict)
        return config

    async def request(self, api: str, body: Object | None = None, domain: str = names.MAIN_DOMAIN) -> None:
        """Meddle with JetStream by hand."""
        answer = await self.pool.network(self.site.network).request(domain, api, body)
        assert answer.error_code == 0, answer.error

    async def messages(self, stream: str = "READINGS", domain: str = names.MAIN_DOMAIN) -> int:
        found = await self.info(stream, domain)
        return -1 if found is None else int(found["state"]["messages"])

    async def is_reachable(self, name: str) -> bool:
        return not await self.is_away(name)

    async def is_away(self, name: str) -> bool:
        try:
            await self.pool.network(self.site.network).request(self.domain(name), "INFO")
        except DomainUnreachable:
            return True
        return False

    async def publish(self, credentials: Credentials, subjects: list[str], url: str | None = None) -> None:
        """Publish to streams, each message acknowledged."""
        world = self.site.world
        async with await Connection.open(url or world.hub.url, world.authority, credentials) as client:
            for subject in subjects:
                await client.client.request(subject, b"x" * 100, timeout=5)

    @staticmethod
    async def until(condition: Callable[[], Awaitable[bool]], what: str, within: float = 20) -> None:
        try:
            async with asyncio.timeout(within):
                while True:
                    if await condition():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {within:g} s: {what}") from None

    async def close(self) -> None:
        """Stop what was started, and remove what other tests could see."""
        for leaf in self.leafs.values():
            leaf.stop()
        kube = self.site.reconciler.kube
        for pod in (await kube.list(POD, NAMESPACE))[0]:
            if (pod["metadata"].get("labels") or {}).get(names.LABEL_OF_NETWORK) == self.site.network:
                await kube.delete(POD, NAMESPACE, pod["metadata"]["name"])
        for edge in (await kube.list(EDGE_NETWORK, NAMESPACE))[0]:
            if edge["spec"]["network"] == self.site.network:
                await kube.delete(EDGE_NETWORK, NAMESPACE, edge["metadata"]["name"])
        await self.pool.close()


@contextlib.asynccontextmanager
async def opened(site: Site, work: Path) -> AsyncIterator[Streams]:
    """A network with storage and a Policy `sensor`, and a JetStream client for looking."""
    await site.make_network(limits=LIMITS)
    await site.make_policy("sensor", allowpub=["readings.>", "other.>"], allowsub=["readings.>", "other.>"])
    await site.reconciler.converge()
    session = VaultSession(Vault(site.world.admin.settings), work / "vault-token")

    async def login(network: str) -> tuple[str, str]:
        return await network_user(session, network, datetime.now(UTC))

    streams = Streams(site, JetStreamPool([site.world.hub.url], login, ca_bundle=site.world.authority.pem), work)
    try:
        yield streams
    finally:
        await streams.close()
        await session.close()
