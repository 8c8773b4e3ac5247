"""Before credentials exist nothing of the user's runs, and a Job ends with its application: both forms of sidecar."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from edgefarm import names
from localcluster.client import EVENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, Json, has_condition
from localcluster.demo.observer import NETWORKS
from localcluster.node.images import SIDECAR_IMAGE
from localcluster.platform import Platform
from tests.noderunner.workloads import container
from webhook.annotations import Mode
from webhook.manifests import outcomes
from webhook.settings import Injection, Vault

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ACCOUNT = "worker"
#: Fails when the credentials are not there at once.
_READS_CREDENTIALS = "import os; print('NATS USER JWT' in open(os.environ['NATS_CREDS']).read(), flush=True)"
#: Fails when daprd does not listen at once.
_ASKS_DAPR = (
    "import os, urllib.request as r; "
    "print(r.urlopen(os.environ['DAPR_HTTP_ENDPOINT'] + '/v1.0/healthz/outbound').status < 300, flush=True)"
)
_SHUTS_DAPR_DOWN = "; r.urlopen(r.Request(os.environ['DAPR_HTTP_ENDPOINT'] + '/v1.0/shutdown', method='POST')).close()"
_STAYS = "; import time; time.sleep(600)"


class Tenant:
    """One namespace with a Network of its own, and no Policy yet."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.platform = platform
        self.name = name

    async def prepare(self) -> None:
        """Make namespace, service account and Network; return when the Network is ready."""
        kube = self.platform.kube
        await kube.create(NAMESPACES, {"metadata": {"name": self.name}})
        await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": _ACCOUNT}}, self.name)
        meta = {"name": self.name, "namespace": names.CONTROLLER_NAMESPACE}
        spec = {"namespaces": [self.name]}
        await kube.apply([{"apiVersion": names.API_VERSION, "kind": "Network", "metadata": meta, "spec": spec}])
        await kube.wait_for(NETWORKS, self.name, names.CONTROLLER_NAMESPACE, until=has_condition("Ready"), timeout=40)

    async def allow(self) -> None:
        """Create the Policy that the pod waits for."""
        meta = {"name": _ACCOUNT, "namespace": self.name}
        spec = {"network": self.name, "allowpub": ["a.>"]}
        await self.platform.kube.apply(
            [{"apiVersion": names.API_VERSION, "kind": "Policy", "metadata": meta, "spec": spec}]
        )

    async def run(self, mode: Mode, *, native: bool, **spec: Any) -> None:
        """Create the pod `app`, injected as on a platform with or without native sidecars."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "app",
                "namespace": self.name,
                "labels": {names.LABEL_NETWORK: self.name},
                "annotations": {names.ANNOTATION_MODE: mode.value},
            },
            "spec": {"serviceAccountName": _ACCOUNT, "terminationGracePeriodSeconds": 2, **spec},
        }
        platform = self.platform
        settings = Injection(
            image=f"{SIDECAR_IMAGE}:latest",
            vault=Vault(platform.bao.address),
            nats_url=platform.nats.url,
            ca_bundle=platform.authority.pem,
            native=native,
            extra_env={"EDGEFARM_DAPRD": str(platform.options.daprd)},
        )
        [outcome] = outcomes([pod], settings, self.name)
        assert outcome.after != outcome.before
        await platform.kube.create(PODS, outcome.after, self.name)

    def log(self, container_name: str) -> str:
        """What a container of the pod has printed."""
        path = self.platform.node_folder / "logs" / f"{self.name}_app_{container_name}.log"
        return path.read_text() if path.exists() else ""

    async def until(self, condition: Callable[[Json], bool], what: str) -> Json:
        """Wait until the pod is so."""
        deadline = time.monotonic() + 40
        pod = None
        while time.monotonic() < deadline:
            pod = await self.platform.kube.find(PODS, "app", self.name)
            if pod is not None and condition(pod):
                return pod
            await asyncio.sleep(0.1)
        events, _ = await self.platform.kube.list(EVENTS, self.name)
        said = [event.get("message") for event in events]
        raise AssertionError(f"{what} was not seen: {json.dumps((pod or {}).get('status'))}, Events: {said}")


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform) -> Tenant:
    made = Tenant(platform, f"order-{uuid4().hex[:6]}")
    await made.prepare()
    return made


def restarts(pod: Json) -> int:
    return sum(entry["restartCount"] for entry in pod["status"].get("containerStatuses", []))


@pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])
@pytest.mark.parametrize("mode", list(Mode))
async def test_nothing_of_the_users_runs_before_the_credentials_exist(tenant: Tenant, mode: Mode, native: bool) -> None:
    looks = _READS_CREDENTIALS if mode is Mode.NATS else _ASKS_DAPR
    # Without native sidecars init containers have no Dapr: there it is shown that they wait, too.
    at_first = looks if native or mode is Mode.NATS else "print(True)"
    await tenant.run(
        mode,
        native=native,
        initContainers=[container(at_first, "migrate")],
        containers=[container(looks + _STAYS, "main")],
    )
    first = names.SIDECAR_CONTAINER if native else names.INIT_CONTAINER
    await tenant.until(lambda _: "create a Policy named" in tenant.log(first), "the sidecar's sentence")
    assert (tenant.log("migrate"), tenant.log("main")) == ("", "")
    await tenant.allow()
    pod = await tenant.until(lambda _: tenant.log("main") != "", "the application")
    assert (tenant.log("migrate"), tenant.log("main")) == ("True\n", "True\n")
    assert restarts(pod) == 0


@pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("script_end", "phase"), [("", "Succeeded"), ("; raise SystemExit(3)", "Failed")])
async def test_a_pod_that_runs_to_completion_ends_with_its_application(
    tenant: Tenant, mode: Mode, native: bool, script_end: str, phase: str
) -> None:
    await tenant.allow()
    work = _READS_CREDENTIALS if mode is Mode.NATS else _ASKS_DAPR
    if mode is Mode.DAPR and not native:
        work += _SHUTS_DAPR_DOWN
    await tenant.run(mode, native=native, restartPolicy="Never", containers=[container(work + script_end, "main")])
    await tenant.until(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), "the end")
    pod = await tenant.until(lambda pod: pod["status"].get("phase") == phase, phase)
    assert tenant.log("main").startswith("True\n")
    ended = {entry["name"]: entry["state"]["terminated"]["exitCode"] for entry in pod["status"]["containerStatuses"]}
    assert ended.pop("main") == (0 if phase == "Succeeded" else 3)
    assert set(ended.values()) <= {0}
