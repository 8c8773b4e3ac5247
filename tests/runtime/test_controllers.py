"""The controllers that the runtime brings along: the webhook's certificate and the judgement of the configuration."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edgefarm import names
from edgefarm.errors import Conflict, NatsUnavailable
from reconciler.certs import CertificateSettings
from reconciler.configuration import Configuration, parse_configuration
from reconciler.configuration_source import configuration_source
from reconciler.connections import Connections
from reconciler.context import Context, Key
from reconciler.controllers import nack
from reconciler.controllers.configuration import ConfigurationController
from reconciler.controllers.webhook_certificate import WebhookCertificateController, ca_bundle_patch
from reconciler.informers import Informers
from reconciler.manager import Manager
from reconciler.metrics import Metrics
from reconciler.ports import MUTATING_WEBHOOK, NACK_ACCOUNT, SECRET, JetStream, Kind, NatsSystem, Object
from reconciler.queue import WorkQueue
from reconciler.settings import Settings
from tests.runtime.fakes import LOG, FakeKube, RecordedEvents, configmap

GOOD = "vault: {address: 'https://vault.example'}\nnats: {urls: ['tls://nats.example']}"


@dataclass
class World:
    """What controllers are given; the clock stands where `now` says."""

    settings: Settings
    kube: FakeKube = field(default_factory=FakeKube)
    events: RecordedEvents = field(default_factory=RecordedEvents)
    now: datetime = datetime(2026, 1, 31, 12, tzinfo=UTC)
    configuration: Configuration | None = field(default_factory=lambda: parse_configuration({"config.yaml": GOOD}))

    def __post_init__(self) -> None:
        self.informers = Informers(self.kube, log=LOG)

    @property
    def context(self) -> Context:
        def no_nats() -> NatsSystem:
            raise NatsUnavailable("not in this test")

        def no_jetstream(_: str) -> JetStream:
            raise NatsUnavailable("not in this test")

        return Context(
            kube=self.kube,
            store=self.informers,
            configuration=lambda: self.configuration,
            vault=Connections(self.settings.vault_token_file, clock=lambda: self.now, metrics=Metrics(), log=LOG),
            nats=no_nats,
            jetstream=no_jetstream,
            events=self.events,
            clock=lambda: self.now,
            settings=self.settings,
            log=LOG,
        )

    async def ca_bundle(self, index: int = 0) -> bytes:
        webhook = await self.kube.get(MUTATING_WEBHOOK, None, names.WEBHOOK_CONFIGURATION)
        assert webhook is not None
        return base64.b64decode(webhook["webhooks"][index]["clientConfig"].get("caBundle", ""))

    async def secret(self, name: str) -> dict[str, bytes]:
        secret = await self.kube.get(SECRET, "network", name)
        assert secret is not None
        return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def webhook_configuration(*clients: dict[str, Any]) -> Object:
    return {
        "apiVersion": MUTATING_WEBHOOK.api_version,
        "kind": MUTATING_WEBHOOK.kind,
        "metadata": {"name": names.WEBHOOK_CONFIGURATION},
        "webhooks": [
            {"name": f"w{index}.network.edgefarm.io", "clientConfig": client} for index, client in enumerate(clients)
        ],
    }


SERVICE = {"service": {"name": names.WEBHOOK_SERVICE, "namespace": "network", "path": "/mutate"}}


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


@pytest.fixture
def controller(world: World) -> WebhookCertificateController:
    return WebhookCertificateController(world.context)


async def test_both_secrets_and_the_bundle_are_made_and_fit_together(
    world: World, controller: WebhookCertificateController
) -> None:
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    result = await controller.reconcile(controller.key)
    assert result.requeue_after is not None
    assert result.requeue_after > timedelta(days=1)
    tls = await world.secret(names.WEBHOOK_SECRET)
    assert await world.ca_bundle() == tls["ca.crt"]
    authority = x509.load_pem_x509_certificate(tls["ca.crt"])
    x509.load_pem_x509_certificate(tls["tls.crt"]).verify_directly_issued_by(authority)
    assert (await world.kube.get(SECRET, "network", names.WEBHOOK_SECRET) or {})["type"] == "kubernetes.io/tls"
    ((kind, about, reason, _),) = world.events.seen
    assert (kind, about, reason) == ("Normal", names.WEBHOOK_CONFIGURATION, "WebhookCertificateChanged")


async def test_a_second_pass_writes_nothing(world: World, controller: WebhookCertificateController) -> None:
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    await controller.reconcile(controller.key)
    writes = world.kube.writes
    await controller.reconcile(controller.key)
    assert world.kube.writes == writes


async def test_an_emptied_bundle_and_a_deleted_secret_are_mended(
    world: World, controller: WebhookCertificateController
) -> None:
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    await controller.reconcile(controller.key)
    before = await world.ca_bundle()
    await world.kube.replace(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    await world.kube.delete(SECRET, "network", names.WEBHOOK_SECRET)
    await controller.reconcile(controller.key)
    assert await world.ca_bundle() == before
    assert (await world.secret(names.WEBHOOK_SECRET))["tls.crt"]


async def test_a_webhook_configuration_that_comes_later_gets_the_bundle(
    world: World, controller: WebhookCertificateController
) -> None:
    await controller.reconcile(controller.key)
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    await controller.reconcile(controller.key)
    assert await world.ca_bundle() == (await world.secret(names.WEBHOOK_SECRET))["ca.crt"]


async def test_the_certificate_is_exchanged_in_time_and_always_verifies_against_the_bundle(world: World) -> None:
    settings = CertificateSettings(
        authority_lifetime=timedelta(days=20),
        server_lifetime=timedelta(days=6),
        spread=timedelta(minutes=10),
        overlap=timedelta(hours=1),
    )
    controller = WebhookCertificateController(world.context, settings)
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    seen = set()
    end = world.now + timedelta(days=60)
    while world.now < end:
        result = await controller.reconcile(controller.key)
        tls = await world.secret(names.WEBHOOK_SECRET)
        seen.add(tls["tls.crt"])
        trusted = x509.load_pem_x509_certificates(await world.ca_bundle())
        assert any(_issued(authority, tls) for authority in trusted), "the served certificate is not trusted"
        assert result.requeue_after is not None
        world.now += max(result.requeue_after, timedelta(minutes=1))
    assert len(seen) > 10


@pytest.mark.parametrize("configuration", ["none yet", "somebody else issues"])
async def test_nothing_is_done_unless_the_configuration_asks_for_it(
    world: World, controller: WebhookCertificateController, configuration: str
) -> None:
    good = world.configuration
    assert good is not None
    elsewhere = replace(good, webhook=replace(good.webhook, issue_certificate=False))
    world.configuration = None if configuration == "none yet" else elsewhere
    await world.kube.create(MUTATING_WEBHOOK, webhook_configuration(SERVICE))
    writes = world.kube.writes
    await controller.reconcile(controller.key)
    assert world.kube.writes == writes


async def test_additional_hosts_are_in_the_certificate(world: World, controller: WebhookCertificateController) -> None:
    assert world.configuration is not None
    world.configuration = replace(
        world.configuration, webhook=replace(world.configuration.webhook, hosts=("127.0.0.1", "hook.example"))
    )
    await controller.reconcile(controller.key)
    certificate = x509.load_pem_x509_certificate((await world.secret(names.WEBHOOK_SECRET))["tls.crt"])
    hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"network-webhook.network.svc", "127.0.0.1", "hook.example"} <= {str(host.value) for host in hosts}


async def test_a_secret_that_somebody_changed_meanwhile_is_read_again(
    world: World, controller: WebhookCertificateController
) -> None:
    await controller.reconcile(controller.key)
    world.now += timedelta(days=80)  # the server certificate is due
    world.kube.fail["patch"] = Conflict("changed meanwhile")
    with pytest.raises(Conflict):
        await controller.reconcile(controller.key)


@pytest.mark.parametrize(
    ("client", "ours"),
    [
        (SERVICE, True),
        ({"service": {"name": names.WEBHOOK_SERVICE, "namespace": "other"}}, False),
        ({"service": {"name": "other", "namespace": "network"}}, False),
        ({"url": "https://127.0.0.1:8443/mutate"}, True),
        ({"url": "https://elsewhere.example/mutate"}, False),
        ({}, False),
    ],
)
def test_only_entries_that_lead_to_our_webhook_get_our_bundle(client: dict[str, Any], ours: bool) -> None:
    hosts: Sequence[str] = (*names.webhook_hosts("network"), "127.0.0.1")
    patch = ca_bundle_patch(webhook_configuration({}, client), "network", hosts, b"pem")
    assert [operation["path"] for operation in patch if operation["op"] == "add"] == (
        ["/webhooks/1/clientConfig/caBundle"] if ours else []
    )


async def test_a_bad_configuration_gets_a_warning_and_a_good_one_again_is_confirmed_once(world: World) -> None:
    source = configuration_source("network")
    store = world.informers.informer(source).store
    controller = ConfigurationController(world.context)
    key = Key("configuration", "network", "network")
    for text in (GOOD, "unknown: 1", GOOD, GOOD):
        store.put(configmap("network", **{"config.yaml": text}))
        await controller.reconcile(key)
    assert [(kind, reason) for kind, _, reason, _ in world.events.seen] == [
        ("Warning", "InvalidConfiguration"),
        ("Normal", "ConfigurationAccepted"),
    ]
    assert "vault.address: is required. The last good one stays in force." in world.events.seen[0][3]


def _issued(authority: x509.Certificate, tls: dict[str, bytes]) -> bool:
    try:
        x509.load_pem_x509_certificate(tls["tls.crt"]).verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("driver", "login", "followed"), [("native", "", 0), ("native", "nack-foo", 1), ("nack", "", 1)]
)
async def test_objects_of_nack_are_followed_while_it_is_the_driver_and_until_it_has_let_go(
    world: World, driver: str, login: str, followed: int
) -> None:
    await world.kube.create(NACK_ACCOUNT, _of_network(NACK_ACCOUNT, "nack-foo"))
    await world.kube.create(SECRET, _of_network(SECRET, login or "another"))
    streams = f"{GOOD}\nstreams: {{driver: {driver}}}"
    world.configuration, wanted = None, parse_configuration({"config.yaml": streams})
    queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop().call_later, lambda: 0.5)
    manager = Manager(world.informers, queue, resync=lambda: timedelta(days=1), metrics=Metrics(), log=LOG)
    manager.register([nack.build(world.context)])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.informers.run())
        await world.informers.synced()
        assert world.informers(NACK_ACCOUNT).list() == []
        world.configuration = wanted
        world.informers.reconsider()
        await world.informers.synced()
        assert len(world.informers(NACK_ACCOUNT).list()) == followed
        task.cancel()


def _of_network(kind: Kind, name: str) -> Object:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_OF_NETWORK: "foo"}
    metadata = {"name": name, "namespace": "network", "uid": name, "labels": labels}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
