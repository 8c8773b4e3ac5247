"""The reconciler as a process, on an API server with our CRDs."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from edgefarm import names
from localcluster.kubernetes import ApiServer
from localcluster.process import LocalProcess, free_port
from reconciler.adapters.kube import KubeClient
from reconciler.ports import CONFIGMAP, EVENT, LEASE, Kind
from tests.runtime.fakes import configmap, eventually

CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
CRD_FOLDER = Path(__file__).parents[2] / "charts" / "edgefarm-network" / "files" / "crds"
#: Nothing answers there, which the process must take calmly.
CONFIGURATION = "vault: {address: 'https://127.0.0.1:1'}\nnats: {urls: ['tls://127.0.0.1:1']}"
DEPLOYED = "vault: {deploy: true}\nnats: {deploy: true}"


class Replica:
    """One process of the reconciler."""

    def __init__(self, process: LocalProcess, port: int) -> None:
        self.process = process
        self._port = port

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.process.log.read_text()

    async def ready(self) -> tuple[int, str]:
        """Status and text of /readyz; 0 while nothing answers."""
        return await asyncio.to_thread(self._get, "/readyz")

    async def metrics(self) -> str:
        return (await asyncio.to_thread(self._get, "/metrics"))[1]

    async def says(self, text: str) -> None:
        """Return when /readyz is 200 and contains `text`."""

        async def said() -> bool:
            status, body = await self.ready()
            assert self.process.returncode is None, self.process.tail()
            return status == 200 and text in body

        await eventually(said, seconds=45)

    async def end(self) -> int:
        return await asyncio.to_thread(self.process.wait, 15)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""


@pytest.fixture
async def crds(kube: KubeClient) -> None:
    """Our custom resources, established."""
    for path in sorted(CRD_FOLDER.glob("*.yaml")):
        definition = yaml.safe_load(path.read_text())
        name = definition["metadata"]["name"]
        if await kube.get(CRD, None, name) is None:
            await kube.create(CRD, definition)

        async def established(name: str = name) -> bool:
            crd = await kube.get(CRD, None, name) or {}
            conditions = crd.get("status", {}).get("conditions", [])
            return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

        await eventually(established, seconds=20)


@pytest.fixture
def start(api_server: ApiServer, namespace: str, work: Path) -> Iterator[Callable[[str], Replica]]:
    """Starts a replica of that pod name in the test's namespace."""
    replicas: list[Replica] = []
    (work / "vault-token").write_text("token")

    def start(pod: str) -> Replica:
        port = free_port()
        environ = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(api_server.kubeconfig),
            "EDGEFARM_NAMESPACE": namespace,
            "EDGEFARM_POD_NAME": pod,
            "EDGEFARM_VAULT_TOKEN_FILE": str(work / "vault-token"),
            "EDGEFARM_HEALTH_HOST": "127.0.0.1",
            "EDGEFARM_HEALTH_PORT": str(port),
            "EDGEFARM_LEASE_DURATION": "4s",
            "EDGEFARM_LEASE_RENEW_DEADLINE": "3s",
            "EDGEFARM_LEASE_RETRY_PERIOD": "1s",
        }
        command = [sys.executable, "-W", "error", "-m", "reconciler"]
        replica = Replica(LocalProcess.start(pod, command, log=work / f"{pod}.log", env=environ), port)
        replicas.append(replica)
        return replica

    yield start
    for replica in replicas:
        replica.process.stop()


async def holder(kube: KubeClient, namespace: str) -> str:
    lease = await kube.get(LEASE, namespace, names.ELECTION_LEASE)
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")


@pytest.mark.usefixtures("crds")
async def test_it_waits_for_its_configuration_takes_it_and_keeps_the_last_good_one(
    kube: KubeClient, namespace: str, start: Callable[[str], Replica]
) -> None:
    replica = start("controller-0")
    await replica.says("leading: waiting for ConfigMap network")
    await kube.create(CONFIGMAP, configmap("network", namespace, **{"config.yaml": CONFIGURATION}))
    await replica.says("leading: configured")
    await kube.patch(CONFIGMAP, namespace, "network", {"data": {"config.yaml": "unknown: 1"}})
    await replica.says("the last good one stays in force: vault.address: is required")

    async def reasons() -> set[str]:
        return {event["reason"] for event in (await kube.list(EVENT, namespace))[0]}

    async def complained() -> bool:
        return await reasons() == {"InvalidConfiguration"}

    async def confirmed() -> bool:
        return await reasons() == {"InvalidConfiguration", "ConfigurationAccepted"}

    await eventually(complained)
    await kube.patch(CONFIGMAP, namespace, "network", {"data": {"config.yaml": CONFIGURATION}})
    await replica.says("leading: configured")
    await eventually(confirmed)
    metrics = await replica.metrics()
    assert "edgefarm_leader 1.0" in metrics
    assert 'edgefarm_configuration_state{state="valid"} 1.0' in metrics
    replica.process.signal(15)
    assert await replica.end() == 0


@pytest.mark.usefixtures("crds")
async def test_a_second_replica_stands_by_and_takes_over_at_once_when_the_first_one_ends(
    kube: KubeClient, namespace: str, start: Callable[[str], Replica]
) -> None:
    first = start("controller-0")
    await first.says("leading")
    second = start("controller-1")
    await second.says("standing by")
    first.process.signal(15)
    assert await first.end() == 0
    await second.says("leading")
    assert (await holder(kube, namespace)).startswith("controller-1_")


@pytest.mark.usefixtures("crds")
async def test_a_replica_that_takes_over_waits_for_no_server_that_became_ready_under_another_one(
    kube: KubeClient, namespace: str, start: Callable[[str], Replica]
) -> None:
    """Otherwise it would say of all Networks that they wait."""
    await kube.create(CONFIGMAP, configmap("network", namespace, **{"config.yaml": DEPLOYED}))
    first = start("controller-0")
    await first.says("leading: waiting for network-nats")
    second = start("controller-1")
    await second.says("standing by: waiting for network-nats")

    async def remembered() -> bool:
        return await kube.get(CONFIGMAP, namespace, names.SERVERS_CA) is not None

    await eventually(remembered)
    ready = {names.ANNOTATION_READY_SERVERS: f"{names.NATS_SERVER},{names.VAULT_SERVER}"}
    await kube.patch(CONFIGMAP, namespace, names.SERVERS_CA, {"metadata": {"annotations": ready}})
    first.process.signal(15)
    assert await first.end() == 0
    await second.says("leading")
    assert "the configuration came into force" in second.log
    assert "the configuration came into force" not in first.log


@pytest.mark.usefixtures("crds")
async def test_a_replica_that_loses_its_lease_ends_with_a_failure_and_leaves_the_lease_alone(
    kube: KubeClient, namespace: str, start: Callable[[str], Replica]
) -> None:
    replica = start("controller-0")
    await replica.says("leading")
    await kube.patch(LEASE, namespace, names.ELECTION_LEASE, {"spec": {"holderIdentity": "thief"}})
    assert await replica.end() == 1
    assert await holder(kube, namespace) == "thief"
    assert "the lease is lost" in replica.process.tail()


async def test_a_wrong_environment_is_explained_and_ends_the_process(work: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "EDGEFARM_WORKERS": "many"}
    process = LocalProcess.start("reconciler", [sys.executable, "-m", "reconciler"], log=work / "log", env=environ)
    assert await asyncio.to_thread(process.wait, 20) == 2
    assert "EDGEFARM_WORKERS is 'many': write a whole number" in process.tail()
    assert "EDGEFARM_POD_NAME is not set" in process.tail()
