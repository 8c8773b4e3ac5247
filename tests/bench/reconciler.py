"""Converges N networks with five Policies each from nothing, beside as many bare Vault writes; prints JSON lines.

`python -m tests.bench.reconciler --networks 200`. The reconciler runs as in production: informers, queue, workers, its
own login to Vault, and the hub's system account; only leader election is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.api.crd import definitions
from edgefarm.grants import grant_policy
from edgefarm.telemetry import configure_logging
from edgefarm.vault import Role, Vault
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.jetstream import JetStreamPool
from reconciler.adapters.kube import KubeClient
from reconciler.adapters.nats import SystemClient
from reconciler.concurrency import all_of
from reconciler.context import Context, Key
from reconciler.controllers import network, policy
from reconciler.events import EventRecorder
from reconciler.informers import Informers
from reconciler.manager import Manager
from reconciler.metrics import Metrics
from reconciler.ports import NETWORK, POLICY, AccountOnServer, Kind, Object
from reconciler.queue import WorkQueue
from reconciler.settings import Settings, read_settings
from reconciler.status import find_condition
from reconciler.users import network_user, system_user
from reconciler.vault_session import VaultSession
from tests.reconciler.world import World, install_definitions, make_namespace

_POLICIES = 5
_WORKERS = 16
_NAMESPACES = 10
_LOG = configure_logging("reconciler", "warning")


def say(case: str, metric: str, unit: str, value: float, **more: Any) -> None:
    """One result."""
    line = {"bench": "reconciler", "case": case, "metric": metric, "unit": unit, "value": round(value, 3), **more}
    print(json.dumps(line), flush=True)


class CountedNats:
    """The system account's client, counting what it is asked to write."""

    def __init__(self, system: SystemClient) -> None:
        self._system = system
        self.writes = 0

    async def push(self, account_jwt: str) -> None:
        self.writes += 1
        await self._system.push(account_jwt)

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        return await self._system.lookup(account)

    async def delete(self, delete_claims_jwt: str) -> None:
        self.writes += 1
        await self._system.delete(delete_claims_jwt)


@dataclass
class Bench:
    """One reconciler at work, with everything counted."""

    kube: KubeClient
    vault: Vault
    nats: CountedNats
    informers: Informers
    manager: Manager
    queue: WorkQueue[Key]

    @property
    def writes(self) -> dict[str, int]:
        return {"kubernetes": self.kube.writes, "vault": self.vault.writes, "nats": self.nats.writes}


@asynccontextmanager
async def reconciler(world: World, folder: Path) -> AsyncIterator[Bench]:
    """A new reconciler process, so to speak: nothing is remembered from an earlier one."""
    settings = _settings(world, folder)
    kube = await KubeClient.connect(settings.kubernetes)
    vault = Vault(world.admin.settings)
    session = VaultSession(vault, settings.vault_token_file)

    async def user() -> tuple[str, str]:
        return await system_user(session, datetime.now(UTC))

    system = SystemClient([world.hub.url], user, ca_bundle=world.authority.pem)
    counted = CountedNats(system)

    async def network_login(network: str) -> tuple[str, str]:
        return await network_user(session, network, datetime.now(UTC))

    jetstream = JetStreamPool([world.hub.url], network_login, ca_bundle=world.authority.pem)
    informers = Informers(kube, log=_LOG)
    queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop().call_later, lambda: 0.5)
    manager = Manager(informers, queue, resync=lambda: timedelta(hours=1), metrics=Metrics(), log=_LOG)
    configuration = world.configuration
    context = Context(
        kube=kube,
        store=informers,
        configuration=lambda: configuration,
        vault=session,
        nats=lambda: counted,
        jetstream=jetstream.network,
        events=EventRecorder(kube, "bench", clock=lambda: datetime.now(UTC), log=_LOG),
        clock=lambda: datetime.now(UTC),
        settings=settings,
        log=_LOG,
    )
    manager.register([network.build(context), policy.build(context)])
    tasks = [asyncio.create_task(informers.run())]
    try:
        await informers.synced()
        tasks.append(asyncio.create_task(manager.run(settings.workers)))
        yield Bench(kube, vault, counted, informers, manager, queue)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await jetstream.close()
        await system.close()
        await session.close()
        await kube.close()


def _settings(world: World, folder: Path) -> Settings:
    token = folder / "vault-token"
    token.write_text(world.reviewer.token(names.CONTROLLER_NAMESPACE, "network-controller"))
    return read_settings(
        {
            "EDGEFARM_POD_NAME": "bench",
            "KUBECONFIG": str(world.api.kubeconfig),
            "EDGEFARM_VAULT_TOKEN_FILE": str(token),
            "EDGEFARM_WORKERS": str(_WORKERS),
        }
    )


async def create_objects(kube: KubeClient, networks: int) -> None:
    """Write all Networks and Policies; the reconciler is not running yet."""
    for number in range(min(_NAMESPACES, networks)):
        await make_namespace(kube, f"tenant{number}")
    for number in range(networks):
        namespace = f"tenant{number % _NAMESPACES}"
        await kube.create(NETWORK, _object(NETWORK, names.CONTROLLER_NAMESPACE, f"net{number}", namespaces=[namespace]))
        await all_of(
            kube.create(
                POLICY, _object(POLICY, namespace, f"p{number}-{each}", network=f"net{number}", allowpub=["a.>"])
            )
            for each in range(_POLICIES)
        )


def _object(kind: Kind, namespace: str, name: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


async def at_rest(bench: Bench, networks: int) -> None:
    """Return when nothing is left to do and every Network and Policy is Ready."""
    async with asyncio.timeout(60 + 5 * networks):
        while True:
            if bench.queue.idle and _all_ready(bench.informers):
                return
            await asyncio.sleep(0.02)


def _all_ready(informers: Informers) -> bool:
    conditions = (find_condition(obj, "Ready") for kind in (NETWORK, POLICY) for obj in informers(kind).list())
    return all(condition is not None and condition["status"] == "True" for condition in conditions)


async def bare_writes(world: World, folder: Path, networks: int) -> float:
    """Seconds for the same writes and signatures with nothing around them, as many at a time as the session allows."""
    vault = Vault(world.admin.settings)
    session = VaultSession(vault, _settings(world, folder).vault_token_file)
    began = time.perf_counter()
    try:
        await all_of(_bare_network(session.call, vault, f"bare{number}") for number in range(networks))
    finally:
        await session.close()
    return time.perf_counter() - began


async def _bare_network(call: Callable[..., Awaitable[Any]], vault: Vault, name: str) -> None:
    writes = [call(Vault.create_key, names.account_key(name))]
    writes.append(call(Vault.sign, names.OPERATOR_SIGNING_KEYS[0], 1, b"x" * 2500))
    for each in range(_POLICIES):
        role, path = names.grant_role(name, "tenant", f"p{each}"), names.access_document(name, "tenant", f"p{each}")
        key, policy_name = names.policy_key(name, "tenant", f"p{each}"), names.vault_policy(role)
        writes += [
            call(Vault.create_key, key),
            call(Vault.write_policy, policy_name, grant_policy(vault.settings, key, path)),
            call(Vault.write_role, Role(role, "tenant", f"p{each}", names.DEFAULT_AUDIENCE, (policy_name,), 600)),
            call(Vault.write_document, path, {"text": "x" * 500}),
        ]
    await all_of(writes)


async def run(networks: int, folder: Path) -> None:
    """The benchmark."""
    authority = Authority.create(folder / "pki")
    openbao = OpenBao.start(folder / "openbao", authority)
    world = World.start(folder / "world", authority, openbao)
    try:
        case = f"{networks} networks x {_POLICIES} policies, {_WORKERS} workers"
        kube = await KubeClient.connect(_settings(world, folder).kubernetes)
        await install_definitions(kube, list(definitions().values()))
        await create_objects(kube, networks)
        await kube.close()
        began = time.perf_counter()
        async with reconciler(world, folder) as bench:
            await at_rest(bench, networks)
            seconds = time.perf_counter() - began
            _say_requests(case, bench.vault.requests)
            writes = bench.vault.writes
        limit = await bare_writes(world, folder, networks)
        more = {"peer": "bare Vault writes", "peer_value": round(limit, 3), "ratio": round(seconds / limit, 2)}
        say(case, "converge", "s", seconds, **more)
        say(case, "vault writes", "requests", writes)
        began = time.perf_counter()
        async with reconciler(world, folder) as bench:
            await at_rest(bench, networks)
            say(case, "second pass", "s", time.perf_counter() - began)
            for system, count in bench.writes.items():
                say(case, f"second pass: {system} writes", "requests", count)
    finally:
        world.stop()
        openbao.stop()


def _say_requests(case: str, requests: Counter[str]) -> None:
    for kind, count in sorted(requests.items()):
        say(case, f"vault: {kind}", "requests", count)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=200, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-reconciler-") as folder:
        asyncio.run(run(arguments.networks, Path(folder)))


if __name__ == "__main__":
    main()
