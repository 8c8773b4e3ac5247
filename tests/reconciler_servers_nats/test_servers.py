"""The NATS that the reconciler runs, as a cluster's nodes start it: three servers, one client that must not notice."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import nats.errors
from cryptography import x509
from nats.js.errors import APIError, NoStreamResponseError

from edgefarm import names
from edgefarm.nats.serverconfig import CLIENT_PORT, LEAF_PORT
from reconciler.ports import CONFIGMAP, POD_DISRUPTION_BUDGET, SECRET, SERVICE, STATEFUL_SET, Object
from tests.natskit import Connection, LocalAccount
from tests.reconciler_servers_nats.installation import Installation

_SMALL: Any = {"storage": {"size": "128Mi"}}


def _uids(pods: dict[str, Object]) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in pods.items()}


def _hosts(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


async def _versions(installation: Installation) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in (CONFIGMAP, POD_DISRUPTION_BUDGET, SECRET, SERVICE, STATEFUL_SET):
        objects, _ = await installation.kube.list(kind, installation.namespace)
        found |= {f"{kind.kind} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in objects}
    return found


async def test_what_servers_can_reload_reaches_them_under_the_clients(installation: Installation) -> None:
    installation.accept(replicas=3, **_SMALL)
    pods = await installation.ready(3)
    before = await installation.loaded()
    account = await installation.account()
    async with await installation.connect(account) as client:
        installation.accept(replicas=3, memoryStorage="300Mi", hosts=["nats.example"], **_SMALL)
        await installation.loaded(before)
        await installation.until(
            lambda: _all_show(installation, pods, "nats.example"), "all listeners show the new certificate"
        )
        await installation.told("ConfigurationReloaded")
        await client.settle()
        assert client.errors == []
        assert not client.closed.is_set()
    assert _uids(await installation.pods()) == _uids(pods)
    settled = await _versions(installation)
    await installation.controller.reconcile(installation.controller.key)
    assert await _versions(installation) == settled


async def _all_show(installation: Installation, pods: dict[str, Object], host: str) -> bool:
    shown = [
        await asyncio.to_thread(installation.certificate, pod, port)
        for pod in pods.values()
        for port in (CLIENT_PORT, LEAF_PORT)
    ]
    return all(host in _hosts(certificate) for certificate in shown)


async def test_a_lost_certificate_is_replaced_without_a_restart(installation: Installation) -> None:
    installation.accept(**_SMALL)
    pods = await installation.ready(1)
    (pod,) = pods.values()
    before = installation.certificate(pod, CLIENT_PORT)
    await installation.kube.delete(SECRET, installation.namespace, names.server_tls_secret(names.NATS_SERVER))

    async def replaced() -> bool:
        return await asyncio.to_thread(installation.certificate, pod, CLIENT_PORT) != before

    await installation.until(replaced, "the server shows another certificate")
    assert _uids(await installation.pods()) == _uids(pods)


class _Publisher:
    """Publishes numbers to a stream until it is stopped, over a new connection whenever one is lost, and remembers
    which were acknowledged.

    nats-py is not left to reconnect by itself: when a TLS handshake fails on the way, it may wait for ever.
    """

    def __init__(self, installation: Installation, account: LocalAccount) -> None:
        self._installation = installation
        self._account = account
        self._next = 0
        self.acknowledged: list[int] = []
        self.stopped = False

    async def run(self) -> None:
        while not self.stopped:
            with contextlib.suppress(nats.errors.Error, APIError, NoStreamResponseError, OSError, TimeoutError):
                async with asyncio.timeout(5):
                    connection = await self._installation.connect(self._account)
                try:
                    await self._publish(connection)
                finally:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await connection.client.close()

    async def _publish(self, connection: Connection) -> None:
        jetstream = connection.client.jetstream(timeout=1)
        while not self.stopped:
            self._next += 1
            await jetstream.publish("numbers.all", str(self._next).encode())
            self.acknowledged.append(self._next)
            await asyncio.sleep(0.03)


async def test_servers_that_cannot_reload_restart_one_by_one_and_lose_nothing(installation: Installation) -> None:
    installation.accept(replicas=3, memoryStorage="128Mi", **_SMALL)
    pods, before = await installation.ready(3), await installation.loaded()
    account = await installation.account()
    async with await installation.connect(account) as client:
        await client.client.jetstream().add_stream(name="numbers", subjects=["numbers.>"], num_replicas=3)
    publisher = _Publisher(installation, account)
    publishing = asyncio.create_task(publisher.run())
    fewest = 3
    installation.accept(replicas=3, memoryStorage="64Mi", **_SMALL)

    async def replaced() -> bool:
        nonlocal fewest
        now = await installation.pods()
        fewest = min(fewest, len(now))
        return len(now) == 3 and not set(_uids(now).values()) & set(_uids(pods).values())

    await installation.until(replaced, "all pods are new ones", within=60)
    seen = len(publisher.acknowledged)
    await installation.until(lambda: _more(publisher, seen), "messages are accepted afterwards")
    publisher.stopped = True
    await publishing
    async with await installation.connect(account) as client:
        jetstream = client.client.jetstream()
        info = await jetstream.stream_info("numbers")
        stored = [await jetstream.get_msg("numbers", seq) for seq in range(1, info.state.last_seq + 1)]
    assert set(publisher.acknowledged) <= {int(message.data or b"0") for message in stored}
    assert fewest == 2
    assert "RestartNeeded" in installation.events.reasons()
    assert await installation.loaded() != before


async def _more(publisher: _Publisher, seen: int) -> bool:
    return len(publisher.acknowledged) > seen
