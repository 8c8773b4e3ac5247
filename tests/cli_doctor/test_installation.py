"""`edgefarm doctor` against the whole product, as separate processes: nobody stands in for the reconciler here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from cli.__main__ import build
from edgefarm import names
from edgefarm.findings import Code
from localcluster.client import PODS, SERVICE_ACCOUNTS, has_condition
from localcluster.daprd import write_launcher
from localcluster.demo.observer import NETWORKS, POLICIES
from localcluster.platform import Platform, PlatformOptions
from tests.cli_doctor.conftest import Told

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

FACTORY: Final = "factory"
#: So seldom does the reconciler look by itself that what is taken away stays away for the test.
RESYNC: Final = "10m"


def _object(kind: str, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _pod(account: str) -> dict[str, Any]:
    command = ["python", "-c", "import time; time.sleep(600)"]
    metadata = {
        "name": account,
        "namespace": FACTORY,
        "labels": {names.LABEL_NETWORK: "plant"},
        "annotations": {names.ANNOTATION_MODE: "nats"},
    }
    containers = [{"name": "app", "image": "python:3", "command": command}]
    spec = {"serviceAccountName": account, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """The product with a network, and a pod in it that is ready."""
    folder: Path = tmp_path_factory.mktemp("platform")
    async with Platform(folder, PlatformOptions(daprd=write_launcher(folder), resync=RESYNC)) as running:
        await running.start()
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FACTORY}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger", "namespace": FACTORY}}
        network = _object("Network", names.CONTROLLER_NAMESPACE, "plant", namespaces=[FACTORY])
        policy = _object("Policy", FACTORY, "sensor", allowpub=["sensor.>"])
        await running.kube.apply([namespace, account, network, policy])
        kube, ready = running.kube, has_condition("Ready")
        await kube.wait_for(NETWORKS, "plant", names.CONTROLLER_NAMESPACE, until=ready, timeout=40)
        await kube.wait_for(POLICIES, "sensor", FACTORY, until=ready, timeout=40)
        await kube.wait_for(SERVICE_ACCOUNTS, "sensor", FACTORY, until=bool, timeout=20)
        await kube.apply([_pod("sensor"), _pod("stranger")])
        await kube.wait_for(PODS, "sensor", FACTORY, until=ready, timeout=40)
        yield running


async def doctor(platform: Platform, *arguments: str) -> Told:
    """Run the command in a thread, as its client waits for answers."""

    def run() -> Told:
        chosen = ["--kubeconfig", str(platform.api.kubeconfig), "-o", "json"]
        result = CliRunner().invoke(build(), ["doctor", *arguments, *chosen])
        assert json.loads(result.stdout)["findings"]
        return Told(result.exit_code, result.stdout)

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("arguments", [(), ("network", "plant"), ("pod", "sensor", "-n", FACTORY)])
async def test_an_installation_in_order_has_no_finding_but_good_ones(
    platform: Platform, arguments: tuple[str, ...]
) -> None:
    told = await doctor(platform, *arguments)
    assert told.codes("error", "warning", "unknown") == set()
    assert told.status == 0
    assert {Code.VAULT_SETUP_OUTDATED, Code.NATS_REFUSES_CONTROLLER, Code.WEBHOOK_UNREACHABLE} <= told.codes("ok")


async def test_a_pod_without_a_policy_is_told_why_in_the_words_of_reconciler_and_sidecar(platform: Platform) -> None:
    told = await doctor(platform, "pod", "stranger", "-n", FACTORY)
    assert told.status == 1
    assert told.bad == {Code.NO_GRANT, Code.SIDECAR_NOT_READY}


async def test_a_role_that_somebody_deleted_is_found_for_the_pod_that_needs_it(platform: Platform) -> None:
    platform.vault.delete_role(names.grant_role("plant", FACTORY, "sensor"))
    assert (await doctor(platform, "pod", "sensor", "-n", FACTORY)).bad == {Code.ROLE_MISSING}


async def test_nats_that_is_away_is_found_behind_the_api_server(platform: Platform) -> None:
    platform.nats.stop()
    told = await doctor(platform)
    assert told.bad - {Code.NETWORK_NOT_READY} == {Code.NATS_UNREACHABLE}
