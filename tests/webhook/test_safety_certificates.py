"""The webhook's certificate from the reconciler to the API server: exchanged under load, never fought over.

Real parts: API server, two replicas of the webhook, and the reconciler's controller twice, as if both thought they
lead. The test stands in for kubelet (a Secret into a folder), for the Service (a balancer) and moves the clock.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edgefarm import names
from edgefarm.errors import Conflict, EdgefarmError, NatsUnavailable
from localcluster.client import NAMESPACES, PODS, SERVICE_ACCOUNTS, Client
from localcluster.kubernetes import ApiServer, LocalApiServer
from reconciler.adapters.kube import KubeClient
from reconciler.certs import CertificateSettings
from reconciler.configuration import parse_configuration
from reconciler.connections import Connections
from reconciler.context import Context
from reconciler.controllers.webhook_certificate import WebhookCertificateController
from reconciler.informers import Informers
from reconciler.metrics import Metrics
from reconciler.ports import MUTATING_WEBHOOK, NAMESPACE, SECRET, JetStream, NatsSystem
from reconciler.settings import Settings, read_kubernetes_settings, read_settings
from tests.runtime.fakes import LOG, RecordedEvents
from tests.webhook.balancer import Balancer
from tests.webhook.conftest import StartWebhook, Webhook, make_pod

#: Together below pki.BACKDATE, so that what is made at the moved clock is valid at the true one.
SHORT = CertificateSettings(
    authority_lifetime=timedelta(minutes=3),
    server_lifetime=timedelta(minutes=2),
    spread=timedelta(seconds=10),
    overlap=timedelta(seconds=40),
)
CONFIGURATION = (
    "vault: {address: 'https://vault.example'}\nnats: {urls: ['tls://nats.example']}\nwebhook: {hosts: [127.0.0.1]}"
)


@dataclass
class Clock:
    """The true time, moved forward by the test."""

    shift: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


@dataclass
class Replica:
    """A webhook and the folder into which its kubelet writes the Secret."""

    webhook: Webhook
    versions: int = 0

    def mount(self, secret: dict[str, Any]) -> None:
        """Write the Secret as kubelet does: a new folder, then one rename of a symbolic link."""
        self.versions += 1
        folder = self.webhook.certificates
        version = folder / f"..{self.versions}"
        version.mkdir()
        for name, value in secret["data"].items():
            (version / name).write_bytes(base64.b64decode(value))
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        link = folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(folder / "..data")

    def serial(self) -> int:
        """Serial number of the certificate that a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.webhook.port), timeout=5)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


@dataclass
class Admissions:
    """Creates labelled pods without a pause; an async context manager."""

    kube: Client
    admitted: int = 0
    failures: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Admissions:
        self._tasks = [asyncio.create_task(self._create()) for _ in range(3)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Return when so many more pods were admitted, or one was not."""
        goal = self.admitted + count
        async with asyncio.timeout(30):
            while self.admitted < goal and not self.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _create(self) -> None:
        while True:
            pod = make_pod()
            del pod["metadata"]["ownerReferences"]
            try:
                stored = await self.kube.create(PODS, pod, "team-a")
            except EdgefarmError as error:
                self.failures.append(str(error))
                return
            assert names.ANNOTATION_STATUS in stored["metadata"]["annotations"]
            self.admitted += 1


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[ApiServer]:
    server = LocalApiServer.start(tmp_path / "kubernetes")  # each test needs a cluster of its own
    yield server
    server.stop()


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(api_server.kubeconfig) as client:
        await client.create(NAMESPACES, {"metadata": {"name": "team-a"}})
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "sensor"}}, "team-a")
        yield client


@dataclass
class Reconcilers:
    """Two replicas of the reconciler as far as the certificate goes, each with its own client."""

    clients: list[KubeClient]
    controllers: list[WebhookCertificateController]
    clock: Clock

    @property
    def writes(self) -> int:
        return sum(client.writes for client in self.clients)

    async def at_once(self) -> None:
        """One pass of both at the same time; who loses a race begins again, as the queue makes it do."""
        for _ in range(10):
            passes = (controller.reconcile(controller.key) for controller in self.controllers)
            results = await asyncio.gather(*passes, return_exceptions=True)
            errors = [result for result in results if isinstance(result, BaseException)]
            assert all(isinstance(error, Conflict) for error in errors), errors
            if not errors:
                return
        pytest.fail("the two never agreed")

    async def secret(self) -> dict[str, Any]:
        found = await self.clients[0].get(SECRET, "network", names.WEBHOOK_SECRET)
        assert found is not None
        return found

    async def trusted(self) -> set[int]:
        """Serial numbers of the authorities in caBundle."""
        webhook = await self.clients[0].get(MUTATING_WEBHOOK, None, names.WEBHOOK_CONFIGURATION)
        assert webhook is not None
        bundle = base64.b64decode(webhook["webhooks"][0]["clientConfig"]["caBundle"])
        return {certificate.serial_number for certificate in x509.load_pem_x509_certificates(bundle)}


@pytest.fixture
async def reconcilers(api_server: ApiServer, tmp_path: Path) -> AsyncIterator[Reconcilers]:
    environment = {"KUBECONFIG": str(api_server.kubeconfig)}
    clients = [await KubeClient.connect(read_kubernetes_settings(environment)) for _ in range(2)]
    with contextlib.suppress(Conflict):
        await clients[0].create(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.CONTROLLER_NAMESPACE}}
        )
    clock = Clock()
    settings = read_settings(
        environment | {"EDGEFARM_POD_NAME": "controller", "EDGEFARM_VAULT_TOKEN_FILE": str(tmp_path / "token")}
    )
    controllers = [WebhookCertificateController(context(client, clock, settings), SHORT) for client in clients]
    yield Reconcilers(clients, controllers, clock)
    for client in clients:
        await client.close()


def context(kube: KubeClient, clock: Clock, settings: Settings) -> Context:
    configuration = parse_configuration({"config.yaml": CONFIGURATION})

    def no_nats() -> NatsSystem:
        raise NatsUnavailable("not in this test")

    def no_jetstream(_network: str) -> JetStream:
        raise NatsUnavailable("not in this test")

    return Context(
        kube=kube,
        store=Informers(kube, log=LOG),
        configuration=lambda: configuration,
        vault=Connections(settings.vault_token_file, clock=clock, metrics=Metrics(), log=LOG),
        nats=no_nats,
        jetstream=no_jetstream,
        events=RecordedEvents(),
        clock=clock,
        settings=settings,
        log=LOG,
    )


def registration(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": names.WEBHOOK_CONFIGURATION},
        "webhooks": [
            {
                "name": "inject.network.edgefarm.io",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate"},
                "failurePolicy": "Fail",
                "objectSelector": {"matchExpressions": [{"key": names.LABEL_NETWORK, "operator": "Exists"}]},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }


def start_replica(start_webhook: StartWebhook, folder: Path) -> Replica:
    folder.mkdir()
    webhook = start_webhook(certificate=False, EDGEFARM_WEBHOOK_CERT_DIR=str(folder))
    return Replica(replace(webhook, certificates=folder))


async def until_serving(replica: Replica, former: int) -> int:
    """Wait until a replica serves another certificate; its serial number."""
    async with asyncio.timeout(20):
        while (serial := await asyncio.to_thread(replica.serial)) == former:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return serial


async def test_authority_and_certificate_are_exchanged_under_load_without_a_failed_admission(
    kube: Client, reconcilers: Reconcilers, start_webhook: StartWebhook, tmp_path: Path
) -> None:
    replicas = [start_replica(start_webhook, tmp_path / f"mounted-{number}") for number in range(2)]
    await reconcilers.at_once()
    for replica in replicas:
        replica.mount(await reconcilers.secret())
        replica.webhook.process.wait_until(replica.webhook.is_ready, "ready")
    with Balancer(lambda: [replica.webhook for replica in replicas]) as balancer:
        await kube.apply([registration(balancer.port)])
        await reconcilers.at_once()
        first = await reconcilers.trusted()
        assert len(first) == 1
        serials, authorities = {await asyncio.to_thread(replicas[0].serial)}, [len(first)]
        async with Admissions(kube) as admissions:
            await admissions.more(20)
            # Each step is due: renewed server certificate and next authority; that in use; the former one dropped.
            for seconds in (121, 11, 41):
                reconcilers.clock.shift += timedelta(seconds=seconds)
                before = await reconcilers.secret()
                await reconcilers.at_once()
                authorities.append(len(await reconcilers.trusted()))
                secret = await reconcilers.secret()
                for replica in replicas:  # one node is later than the other
                    await admissions.more(20)
                    former = await asyncio.to_thread(replica.serial)
                    replica.mount(secret)
                    if secret["data"]["tls.crt"] != before["data"]["tls.crt"]:
                        serials.add(await until_serving(replica, former))
                await admissions.more(20)
        assert admissions.failures == []
    assert len(serials) == 3
    assert authorities == [1, 2, 2, 1]
    assert not first & await reconcilers.trusted()


async def test_two_reconcilers_at_once_agree_on_one_authority_and_then_write_nothing(
    kube: Client, reconcilers: Reconcilers
) -> None:
    await kube.apply([registration(443)])
    await reconcilers.at_once()
    await reconcilers.at_once()
    assert len(await reconcilers.trusted()) == 1
    secret = await reconcilers.secret()
    served = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    [authority] = x509.load_pem_x509_certificates(base64.b64decode(secret["data"]["ca.crt"]))
    served.verify_directly_issued_by(authority)
    settled = reconcilers.writes
    assert settled <= 8  # three objects, two writers, and what those had to do again
    for _ in range(5):
        await reconcilers.at_once()
    assert reconcilers.writes == settled
    reconcilers.clock.shift = timedelta(seconds=121)
    await reconcilers.at_once()
    await reconcilers.at_once()
    settled = reconcilers.writes
    for _ in range(5):
        await reconcilers.at_once()
    assert reconcilers.writes == settled


@pytest.mark.parametrize("bundle", ["", base64.b64encode(secrets.token_bytes(20)).decode()], ids=["emptied", "garbage"])
async def test_a_bundle_that_somebody_changed_is_mended_in_one_pass(
    kube: Client, reconcilers: Reconcilers, bundle: str
) -> None:
    await kube.apply([registration(443)])
    await reconcilers.at_once()
    before, writes = await reconcilers.trusted(), reconcilers.writes
    drifted = registration(443)
    drifted["webhooks"][0]["clientConfig"]["caBundle"] = bundle
    with contextlib.suppress(EdgefarmError):  # a real API server refuses what is no certificate
        await kube.apply([drifted])
    await reconcilers.controllers[0].reconcile(reconcilers.controllers[0].key)
    assert await reconcilers.trusted() == before
    assert reconcilers.writes <= writes + 1
