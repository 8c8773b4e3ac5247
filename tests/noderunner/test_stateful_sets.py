"""StatefulSets as real servers need them: claims and their data, addresses that stay, updates one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from localcluster.client import (
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    Client,
    Json,
    is_gone,
)
from localcluster.workloads.claims import PROTECTION
from tests.noderunner.workloads import SLEEP, Nodes, container, eventually, is_ready, pod, pod_with, workload

#: Counts its starts in its claim, and says the number.
COUNT = "open('/data/starts', 'a').write('x'); print(len(open('/data/starts').read())); " + SLEEP
MOUNT = [{"name": "data", "mountPath": "/data"}]
#: Ready only while somebody has made this file.
GATE = {"exec": {"command": ["python", "-c", "open('/data/open')"]}, "periodSeconds": 1}


def stateful_set(name: str, main: Json, **fields: Any) -> Json:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    return workload("StatefulSet", name, main, serviceName=name, volumeClaimTemplates=[claim], **fields)


def ready_replicas(count: int) -> Callable[[Json | None], bool]:
    return lambda obj: obj is not None and obj.get("status", {}).get("readyReplicas", 0) == count


def other_than(old: Json) -> Callable[[Json], bool]:
    return lambda obj: is_ready(obj) and obj["metadata"]["uid"] != old["metadata"]["uid"]


async def bound_claim(kube: Client, namespace: str, name: str) -> Json:
    claim = await kube.wait_for(
        PERSISTENT_VOLUME_CLAIMS,
        name,
        namespace,
        until=lambda obj: obj is not None and obj.get("status", {}).get("phase") == "Bound",
    )
    assert claim is not None
    return claim


async def open_gate(kube: Client, namespace: str, nodes: Nodes, claim_name: str) -> None:
    """Make a pod ready, once it has closed its own gate."""
    claim = await bound_claim(kube, namespace, claim_name)
    gate = nodes.folder / "claims" / claim["spec"]["volumeName"] / "open"
    await eventually(lambda: not gate.exists(), "the new pod has closed its gate")
    await asyncio.to_thread(gate.touch)


async def has_counted(nodes: Nodes, namespace: str) -> None:
    """Return when the first pod has done its work: without a probe it is ready as soon as its program starts."""
    await eventually(lambda: nodes.log(namespace, "db-0").split() == ["1"], "the first pod has counted")


async def test_a_claim_outlives_its_set_and_gives_the_next_one_its_data(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    spec = stateful_set("db", container(COUNT, volumeMounts=MOUNT))
    await kube.create(STATEFUL_SETS, spec, namespace)
    first = await pod_with(kube, namespace, "db-0", is_ready)
    claim = await bound_claim(kube, namespace, "data-db-0")
    assert claim["metadata"]["labels"] == {"app": "db"}
    assert claim["status"]["capacity"] == {"storage": "1Mi"}
    await has_counted(nodes, namespace)
    await kube.delete(STATEFUL_SETS, "db", namespace)
    await kube.wait_for(PODS, "db-0", namespace, until=is_gone)
    await kube.create(STATEFUL_SETS, spec, namespace)
    again = await pod_with(kube, namespace, "db-0", other_than(first))
    assert again["status"]["podIP"] == first["status"]["podIP"]
    await eventually(lambda: nodes.log(namespace, "db-0").split() == ["1", "2"], "the data is there again")
    assert (await bound_claim(kube, namespace, "data-db-0"))["metadata"]["uid"] == claim["metadata"]["uid"]


async def test_a_deleted_claim_waits_for_its_pod_and_takes_its_data_along(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    await kube.create(STATEFUL_SETS, stateful_set("db", container(COUNT, volumeMounts=MOUNT)), namespace)
    first = await pod_with(kube, namespace, "db-0", is_ready)
    claim = await bound_claim(kube, namespace, "data-db-0")
    folder = nodes.folder / "claims" / claim["spec"]["volumeName"]
    await kube.delete(PERSISTENT_VOLUME_CLAIMS, "data-db-0", namespace)
    waiting = await kube.get(PERSISTENT_VOLUME_CLAIMS, "data-db-0", namespace)
    assert waiting["metadata"]["finalizers"] == [PROTECTION]
    await has_counted(nodes, namespace)
    assert (folder / "starts").exists()
    await kube.delete(PODS, "db-0", namespace)
    await pod_with(kube, namespace, "db-0", other_than(first))
    await eventually(lambda: not folder.exists(), "the data is gone")
    await eventually(lambda: nodes.log(namespace, "db-0").split() == ["1", "1"], "the pod began with an empty claim")


async def test_claims_go_with_a_set_that_says_so_even_if_it_said_otherwise_when_they_were_made(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    await kube.create(STATEFUL_SETS, stateful_set("db", container(SLEEP)), namespace)
    await bound_claim(kube, namespace, "data-db-0")
    policy = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}
    await kube.patch(STATEFUL_SETS, "db", {"spec": policy}, namespace)
    await kube.wait_for(
        PERSISTENT_VOLUME_CLAIMS,
        "data-db-0",
        namespace,
        until=lambda obj: obj is not None and bool(obj["metadata"].get("ownerReferences")),
    )
    await kube.delete(STATEFUL_SETS, "db", namespace)
    await kube.wait_for(PERSISTENT_VOLUME_CLAIMS, "data-db-0", namespace, until=is_gone)


async def test_a_pod_waits_for_a_claim_that_is_not_there(kube: Client, namespace: str, nodes: Nodes) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "late"}}
    await kube.create(PODS, pod("one", container(COUNT, volumeMounts=MOUNT), volumes=[volume]), namespace)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "late"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await pod_with(kube, namespace, "one", lambda obj: obj["status"].get("phase") == "Pending")
    await kube.create(PERSISTENT_VOLUME_CLAIMS, claim, namespace)
    await pod_with(kube, namespace, "one", is_ready)


async def test_an_update_replaces_one_pod_after_the_other_from_the_last_to_the_first(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    gated = container("open('/data/open', 'w'); " + SLEEP, volumeMounts=MOUNT, readinessProbe=GATE)
    await kube.create(STATEFUL_SETS, stateful_set("db", gated, replicas=2), namespace)
    await kube.wait_for(STATEFUL_SETS, "db", namespace, until=ready_replicas(2))
    first, second = [await kube.get(PODS, name, namespace) for name in ("db-0", "db-1")]
    closed = "import os; os.path.exists('/data/open') and os.remove('/data/open'); " + SLEEP
    change = [{"op": "replace", "path": "/spec/template/spec/containers/0/command/2", "value": closed}]
    await kube.patch(STATEFUL_SETS, "db", change, namespace)
    replaced = await pod_with(
        kube,
        namespace,
        "db-1",
        lambda obj: obj["metadata"]["uid"] != second["metadata"]["uid"] and obj["status"].get("phase") == "Running",
    )
    await kube.wait_for(STATEFUL_SETS, "db", namespace, until=ready_replicas(1))
    assert replaced["status"]["podIP"] == second["status"]["podIP"]
    assert (await kube.get(PODS, "db-0", namespace))["metadata"]["uid"] == first["metadata"]["uid"]
    await open_gate(kube, namespace, nodes, "data-db-1")
    await pod_with(kube, namespace, "db-0", lambda obj: obj["metadata"]["uid"] != first["metadata"]["uid"])
    await open_gate(kube, namespace, nodes, "data-db-0")
    await kube.wait_for(STATEFUL_SETS, "db", namespace, until=ready_replicas(2))


async def test_what_a_service_account_owns_goes_with_it(kube: Client, namespace: str, nodes: Nodes) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "owner"}}
    made = await kube.create(SERVICE_ACCOUNTS, account, namespace)
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "owner", "uid": made["metadata"]["uid"]}
    spec = stateful_set("db", container(SLEEP))
    spec["metadata"]["ownerReferences"] = [owner]
    await kube.create(STATEFUL_SETS, spec, namespace)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "db", "ownerReferences": [owner]},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "db"}}},
    }
    await kube.create(POD_DISRUPTION_BUDGETS, budget, namespace)
    await pod_with(kube, namespace, "db-0", is_ready)
    await kube.delete(SERVICE_ACCOUNTS, "owner", namespace)
    for resource, name in ((POD_DISRUPTION_BUDGETS, "db"), (STATEFUL_SETS, "db"), (PODS, "db-0")):
        await kube.wait_for(resource, name, namespace, until=is_gone)
    await bound_claim(kube, namespace, "data-db-0")
