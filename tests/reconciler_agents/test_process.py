"""The whole reconciler with a mesh: an agent that registers wakes a controller, which asks it."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
import yaml

from edgefarm.agentbus import Status
from edgefarm.agentparts import Answer, Request
from edgefarm.errors import Conflict
from localcluster.process import free_port
from reconciler.context import Context, Key, Registration, Result
from reconciler.controllers import agents_account
from reconciler.metrics import Metrics
from reconciler.ports import CONFIGMAP, LEASE, Agents
from reconciler.process import Process
from reconciler.settings import read_settings
from tests.natskit import eventually
from tests.reconciler.world import World
from tests.reconciler_agents.kit import NAMESPACE, Agent, Cluster, Office, accepted, running_office


class Asker:
    """A controller that asks every agent which comes, and remembers the answers."""

    name = "asker"

    def __init__(self, context: Context) -> None:
        self.answers: dict[str, bytes] = {}
        self._context = context

    async def reconcile(self, key: Key) -> Result:
        agents: Agents = self._context.agents()
        if agents.get(key.name) is not None:
            self.answers[key.name] = await agents.request(key.name, b"who are you?")
        return Result()

    def map_agents(self, devices: Sequence[str]) -> Iterable[Key]:
        """The root of each agent."""
        return [Key(self.name, NAMESPACE, device) for device in devices]


async def answer(request: Request) -> Answer:
    return Answer(Status.DONE, request.data.upper())


async def test_a_controller_is_woken_by_an_agent_and_asks_it(world: World, cluster: Cluster, work: Path) -> None:
    askers: list[Asker] = []

    def build(context: Context) -> Registration:
        askers.append(Asker(context))
        return Registration(askers[0], (), agents=askers[0].map_agents)

    stop = asyncio.Event()
    async with running_office(world, cluster.kube, work) as office:
        port = free_port()
        process = new_process(office, work, port)
        await configure(office, cluster, enabled=True)
        running = asyncio.create_task(process.run([agents_account.build, build], stop))
        try:
            await eventually(lambda: len(office.held()["roles"]) == 2, "the account", 20)
            async with office.agent(cluster.token(await cluster.pod("edge")), answer) as agent:
                device = await registered_soon(agent)
                await eventually(lambda: askers[0].answers == {device: b"WHO ARE YOU?"}, "asked", 10)
                metrics = await asyncio.to_thread(scrape, port)
                assert "edgefarm_agents 1.0" in metrics
                assert 'edgefarm_agent_requests_total{result="done"} 1.0' in metrics
                await configure(office, cluster, enabled=False)
                await asyncio.wait_for(agent.connection.closed.wait(), 20)
            await eventually(lambda: office.held()["documents"] == [], "everything removed", 20)
        finally:
            stop.set()
            assert await running == 0
            await cluster.kube.delete(CONFIGMAP, NAMESPACE, "network")
            await cluster.kube.delete(LEASE, NAMESPACE, "network-controller")


async def registered_soon(agent: Agent) -> str:
    """Register as soon as the reconciler listens."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(TimeoutError):
                return accepted(await agent.register(within=1))


def new_process(office: Office, work: Path, port: int) -> Process:
    """The reconciler's process, but for its controllers."""
    settings = read_settings(
        {
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": str(office.world.api.kubeconfig),
            "EDGEFARM_VAULT_TOKEN_FILE": str(work / "vault-token"),
            "EDGEFARM_HEALTH_HOST": "127.0.0.1",
            "EDGEFARM_HEALTH_PORT": str(port),
        }
    )
    return Process(settings, office.kube, Metrics(), log=structlog.get_logger())


async def configure(office: Office, cluster: Cluster, *, enabled: bool) -> None:
    """Write the ConfigMap."""
    vault, nats = office.configuration.vault.server, office.configuration.nats
    text = yaml.safe_dump(
        {
            "vault": {
                "address": vault.address,
                "caBundle": vault.ca_pem,
                "authMount": vault.auth_mount,
                "transitMount": vault.transit_mount,
                "kvMount": vault.kv_mount,
            },
            "nats": {"urls": list(nats.urls), "caBundle": nats.ca_bundle},
            "mesh": {"enabled": enabled},
        }
    )
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "network", "namespace": NAMESPACE}}
    data = {"data": {"config.yaml": text}}
    try:
        await cluster.kube.create(CONFIGMAP, {**body, **data})
    except Conflict:
        await cluster.kube.patch(CONFIGMAP, NAMESPACE, "network", data)


def scrape(port: int) -> str:
    """The process's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return str(page.read().decode())
