"""The Kubernetes adapter, and what stands on it, against an API server."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import yaml

from edgefarm.errors import Conflict, KubernetesRefused, KubernetesUnavailable, SettingsError
from localcluster.kubernetes import ApiServer
from localcluster.process import free_port
from reconciler.adapters.kube import KubeClient
from reconciler.election import Candidate, LeaderElection
from reconciler.events import EventLimits, EventRecorder
from reconciler.ports import CONFIGMAP, EVENT, LEASE, NETWORK, SECRET, WatchEvent
from reconciler.queue import Backoff
from reconciler.settings import KubernetesSettings
from reconciler.watch import Informer, Source, Timing
from tests.runtime.fakes import LOG, configmap, eventually


class Relay:
    """Carries bytes to the API server; its connections can be cut, or made to carry nothing any more."""

    def __init__(self, api_server: ApiServer) -> None:
        self._target = api_server.url.removeprefix("https://").split(":")
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.Event] = {}

    @classmethod
    async def start(cls, api_server: ApiServer) -> Relay:
        relay = cls(api_server)
        relay._server = await asyncio.start_server(relay._serve, "127.0.0.1", 0)
        return relay

    def settings(self, api_server: ApiServer, folder: Path) -> KubernetesSettings:
        assert self._server is not None
        config = yaml.safe_load(api_server.kubeconfig.read_text())
        port = self._server.sockets[0].getsockname()[1]
        cluster = config["clusters"][0]["cluster"]
        cluster["server"] = f"https://127.0.0.1:{port}"
        if "certificate-authority" in cluster:
            cluster["certificate-authority"] = str(api_server.ca)
        (folder / "relayed").write_text(yaml.safe_dump(config))
        return KubernetesSettings(None, "", 0, folder / "relayed")

    def cut(self) -> None:
        for task in self._open:
            task.cancel()

    def freeze(self) -> None:
        for flowing in self._open.values():
            flowing.clear()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing = asyncio.Event()
        flowing.set()
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = flowing
        away_reader, away_writer = await asyncio.open_connection(self._target[0], int(self._target[1]))
        try:
            await asyncio.gather(self._copy(reader, away_writer, flowing), self._copy(away_reader, writer, flowing))
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            del self._open[task]
            for each in (writer, away_writer):
                each.transport.abort()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        while data := await reader.read(65536):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


async def test_an_object_is_created_read_changed_and_deleted(kube: KubeClient, namespace: str) -> None:
    created = await kube.create(CONFIGMAP, configmap("a", namespace, v="1"))
    assert await kube.get(CONFIGMAP, namespace, "a") == created
    created["data"]["v"] = "2"
    replaced = await kube.replace(CONFIGMAP, created)
    assert replaced["data"] == {"v": "2"}
    merged = await kube.patch(CONFIGMAP, namespace, "a", {"data": {"w": "3"}})
    assert merged["data"] == {"v": "2", "w": "3"}
    patched = await kube.patch(CONFIGMAP, namespace, "a", [{"op": "remove", "path": "/data/v"}])
    assert patched["data"] == {"w": "3"}
    assert await kube.delete(CONFIGMAP, namespace, "a", uid=created["metadata"]["uid"])
    assert await kube.get(CONFIGMAP, namespace, "a") is None
    assert not await kube.delete(CONFIGMAP, namespace, "a")
    assert kube.writes == 7  # with the namespace and the attempt to delete what was gone


async def test_a_stale_version_an_existing_name_and_a_reborn_object_are_conflicts(
    kube: KubeClient, namespace: str
) -> None:
    stale = await kube.create(CONFIGMAP, configmap("a", namespace))
    await kube.patch(CONFIGMAP, namespace, "a", {"data": {"v": "1"}})
    with pytest.raises(Conflict):
        await kube.replace(CONFIGMAP, stale)
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(CONFIGMAP, configmap("a", namespace))
    await kube.delete(CONFIGMAP, namespace, "a")
    await kube.create(CONFIGMAP, configmap("a", namespace))
    with pytest.raises(Conflict):
        await kube.delete(CONFIGMAP, namespace, "a", uid=stale["metadata"]["uid"])


async def test_a_refusal_carries_the_status_and_the_servers_own_words(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(KubernetesRefused, match="status 404") as caught:
        await kube.patch(CONFIGMAP, namespace, "nothing", {"data": {}})
    assert caught.value.status == 404
    assert '"nothing" not found' in str(caught.value)
    with pytest.raises(KubernetesRefused) as caught:
        await kube.list(NETWORK)
    assert caught.value.status == 404


async def test_a_long_list_comes_complete_and_says_what_its_items_are(kube: KubeClient, namespace: str) -> None:
    for first in range(0, 520, 40):
        await asyncio.gather(
            *(kube.create(CONFIGMAP, configmap(f"c{number}", namespace)) for number in range(first, first + 40))
        )
    before = kube.requests["list", "ConfigMap"]
    objects, version = await kube.list(CONFIGMAP, namespace)
    assert len({obj["metadata"]["name"] for obj in objects} & {f"c{number}" for number in range(520)}) == 520
    assert {(obj["apiVersion"], obj["kind"]) for obj in objects} == {("v1", "ConfigMap")}
    assert int(version) > 0
    assert kube.requests["list", "ConfigMap"] - before == 2


async def test_selectors_narrow_lists(kube: KubeClient, namespace: str) -> None:
    labelled = configmap("a", namespace)
    labelled["metadata"]["labels"] = {"team": "x"}
    await kube.create(CONFIGMAP, labelled)
    await kube.create(CONFIGMAP, configmap("b", namespace))
    by_label, _ = await kube.list(CONFIGMAP, namespace, labels="team=x")
    by_field, _ = await kube.list(CONFIGMAP, namespace, fields="metadata.name=b")
    assert [obj["metadata"]["name"] for obj in (*by_label, *by_field)] == ["a", "b"]


async def test_a_watch_tells_every_change_and_ends_by_itself(kube: KubeClient, namespace: str) -> None:
    _, version = await kube.list(CONFIGMAP, namespace, fields="metadata.name=a")
    await kube.create(CONFIGMAP, configmap("a", namespace, v="x" * 300_000))
    await kube.patch(CONFIGMAP, namespace, "a", {"data": {"v": "2"}})
    await kube.delete(CONFIGMAP, namespace, "a")
    events: list[WatchEvent] = []
    async with asyncio.timeout(30), aclosing(kube.watch(CONFIGMAP, namespace, version)) as watch:
        async for event in watch:
            if event.type == "BOOKMARK" or event.object["metadata"]["name"] == "a":
                events.append(event)
    assert [event.type for event in events if event.type != "BOOKMARK"] == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_watch_of_an_unknown_kind_is_refused(kube: KubeClient) -> None:
    with pytest.raises(KubernetesRefused, match="404"):
        await anext(kube.watch(NETWORK, None, "1"))


async def test_an_unreachable_server_is_unavailable_and_named(api_server: ApiServer, work: Path) -> None:
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = address = f"https://127.0.0.1:{free_port()}"
    (work / "kubeconfig").write_text(yaml.safe_dump(config))
    client = await KubeClient.connect(KubernetesSettings(None, "", 0, work / "kubeconfig"))
    with pytest.raises(KubernetesUnavailable, match=address):
        await client.get(CONFIGMAP, "default", "a")
    with pytest.raises(KubernetesUnavailable):
        await anext(client.watch(CONFIGMAP, "default", "1"))
    await client.close()


async def test_a_service_account_folder_is_used_and_its_token_read_again(api_server: ApiServer, work: Path) -> None:
    host, port = api_server.url.removeprefix("https://").split(":")
    shutil.copy(api_server.ca, work / "ca.crt")
    (work / "token").write_text("expired")
    client = await KubeClient.connect(KubernetesSettings(work, host, int(port), None))
    with pytest.raises(KubernetesRefused) as caught:
        await client.list(CONFIGMAP, "default")
    assert caught.value.status == 401
    (work / "next").write_text(api_server.admin_token)
    (work / "next").rename(work / "token")
    await client.list(CONFIGMAP, "default")
    await client.close()


@pytest.mark.parametrize("content", ["", "clusters: 5", "{"])
async def test_a_kubeconfig_that_cannot_be_used_is_a_settings_error(work: Path, content: str) -> None:
    (work / "kubeconfig").write_text(content)
    with pytest.raises(SettingsError, match="KUBECONFIG cannot be used"):
        await KubeClient.connect(KubernetesSettings(None, "", 0, work / "kubeconfig"))


async def test_a_service_account_folder_without_an_authority_is_a_settings_error(work: Path) -> None:
    with pytest.raises(SettingsError, match=r"ca\.crt"):
        await KubeClient.connect(KubernetesSettings(work, "127.0.0.1", 1, None))


async def test_an_informer_stays_fresh_over_many_watches(kube: KubeClient, namespace: str) -> None:
    informer = Informer(kube, Source(CONFIGMAP, namespace, fields="metadata.name=a"), log=LOG)
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 20)
    for round_ in range(3):
        watches = kube.requests["watch", "ConfigMap"]
        await eventually(partial(_more_watches, kube, watches), seconds=20)
        await kube.create(CONFIGMAP, configmap("a", namespace, v=str(round_)))
        await kube.create(CONFIGMAP, configmap("unselected", namespace))
        await eventually(lambda: informer.store.get(namespace, "a"))
        for name in ("a", "unselected"):
            await kube.delete(CONFIGMAP, namespace, name)
        await eventually(lambda: not informer.store.list())
    assert kube.requests["list", "ConfigMap"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_that_breaks_or_goes_quiet_is_seen_and_mended(
    kube: KubeClient, api_server: ApiServer, namespace: str, work: Path
) -> None:
    relay = await Relay.start(api_server)
    client = await KubeClient.connect(relay.settings(api_server, work), watch_seconds=2)
    timing = Timing(backoff=Backoff(first=0.05, most=0.2))
    informer = Informer(client, Source(CONFIGMAP, namespace), log=LOG, timing=timing)
    task = asyncio.create_task(informer.run())
    await eventually(lambda: client.requests["watch", "ConfigMap"])
    for name, disturb in (("cut", relay.cut), ("quiet", relay.freeze)):
        disturb()
        await kube.create(CONFIGMAP, configmap(name, namespace))
        await eventually(partial(informer.store.get, namespace, name), seconds=20)
    assert client.requests["list", "ConfigMap"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.close()
    await relay.close()


async def test_a_lease_is_taken_renewed_released_and_taken_over(kube: KubeClient, namespace: str) -> None:
    def candidate(identity: str) -> LeaderElection:
        wanted = Candidate(namespace, "network-controller", identity)
        return LeaderElection(kube, wanted, clock=lambda: datetime.now(UTC), chance=lambda: 0.0, log=LOG)

    first, second = candidate("first"), candidate("second")
    await asyncio.wait_for(first.acquire(), 10)
    holding = asyncio.create_task(first.hold())
    renewed = kube.requests["replace", "Lease"]
    await eventually(lambda: kube.requests["replace", "Lease"] > renewed)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    await first.release()
    await asyncio.wait_for(second.acquire(), 10)
    lease = await kube.get(LEASE, namespace, "network-controller")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseDurationSeconds"] == 15
    assert lease["spec"]["leaseTransitions"] == 1


async def test_events_are_accepted_and_become_a_series(kube: KubeClient, namespace: str) -> None:
    about = await kube.create(CONFIGMAP, configmap("a", namespace))
    recorder = EventRecorder(
        kube, "controller-0", clock=lambda: datetime.now(UTC), log=LOG, limits=EventLimits(quiet=0)
    )
    task = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.warning(about, "InvalidConfiguration", "It is wrong: write something else.")
        await recorder.drained()
    events, _ = await kube.list(EVENT, namespace)
    (event,) = events
    assert event["regarding"]["uid"] == about["metadata"]["uid"]
    assert event["series"]["count"] == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_secrets_never_appear_in_errors(kube: KubeClient, namespace: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": "s"},
        "stringData": {"password": "hunter2"},
    }
    await kube.create(SECRET, secret)
    with pytest.raises(Conflict) as caught:
        await kube.create(SECRET, secret)
    assert "hunter2" not in str(caught.value)


def _more_watches(kube: KubeClient, before: int) -> bool:
    return kube.requests["watch", "ConfigMap"] > before
