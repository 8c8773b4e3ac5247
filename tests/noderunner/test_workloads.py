"""Workload controllers with running pods: Deployment, StatefulSet, DaemonSet, Job, garbage, Services."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from localcluster.client import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Client,
    Json,
    has_condition,
    is_gone,
)
from localcluster.stack import find_program
from tests.noderunner.workloads import (
    SLEEP,
    Nodes,
    container,
    eventually,
    has_phase,
    is_ready,
    pid_of,
    pod,
    pod_with,
    pods_of,
    status_of,
    workload,
)

SERVE = ["python", "-m", "http.server", "8000", "--bind", "127.0.0.1"]


async def test_two_pods_of_a_deployment_listen_on_the_same_port_of_their_own_localhost(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8000}]
    main = {"name": "main", "image": "python", "command": SERVE, "readinessProbe": probe, "ports": ports}
    await kube.create(DEPLOYMENTS, workload("Deployment", "web", main, replicas=2), namespace)
    deployment = await kube.wait_for(DEPLOYMENTS, "web", namespace, until=has_condition("Available"))
    assert deployment is not None
    assert deployment["status"]["availableReplicas"] == 2
    pods = await pods_of(kube, namespace, "web")
    assert len({entry["status"]["podIP"] for entry in pods}) == 2
    assert {entry["spec"]["nodeName"] for entry in pods} == set(nodes.names)
    for entry in pods:
        assert "pod-template-hash" in entry["metadata"]["labels"]
        await asyncio.to_thread(urllib.request.urlopen, f"http://{entry['status']['podIP']}:8000/", timeout=5)


async def test_kubectl_restarts_a_deployment_and_waits_for_its_rollout(
    kube: Client, kubeconfig: Path, namespace: str, nodes: Nodes
) -> None:
    await kube.create(DEPLOYMENTS, workload("Deployment", "app", container(SLEEP), replicas=2), namespace)
    await kube.wait_for(DEPLOYMENTS, "app", namespace, until=has_condition("Available"))
    before = {entry["metadata"]["uid"] for entry in await pods_of(kube, namespace, "app")}
    await _kubectl(kubeconfig, namespace, "rollout", "restart", "deployment/app")
    output = await _kubectl(kubeconfig, namespace, "rollout", "status", "deployment/app", "--timeout=30s")
    assert "successfully rolled out" in output
    after = await pods_of(kube, namespace, "app")
    assert len(after) == 2
    assert not before & {entry["metadata"]["uid"] for entry in after}
    await _kubectl(kubeconfig, namespace, "rollout", "undo", "deployment/app")
    await _kubectl(kubeconfig, namespace, "rollout", "status", "deployment/app", "--timeout=30s")
    await _kubectl(kubeconfig, namespace, "scale", "deployment/app", "--replicas=0")
    await kube.wait_for(
        DEPLOYMENTS, "app", namespace, until=lambda obj: obj is not None and not obj["status"].get("replicas")
    )


async def test_a_deployment_whose_pods_are_refused_says_why_and_tries_again(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    deployment = workload("Deployment", "refused", container(SLEEP))
    deployment["spec"]["template"]["spec"]["serviceAccountName"] = "late"
    await kube.create(DEPLOYMENTS, deployment, namespace)
    failed = await kube.wait_for(DEPLOYMENTS, "refused", namespace, until=has_condition("ReplicaFailure"))
    assert failed is not None
    messages = [entry["message"] for entry in failed["status"]["conditions"] if entry["type"] == "ReplicaFailure"]
    assert "late" in messages[0]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "late"}}
    await kube.create(SERVICE_ACCOUNTS, account, namespace)
    recovered = await kube.wait_for(DEPLOYMENTS, "refused", namespace, until=has_condition("Available"))
    assert recovered is not None
    assert "ReplicaFailure" not in {entry["type"] for entry in recovered["status"]["conditions"]}


async def test_a_stateful_set_starts_in_order_and_keeps_its_claims(kube: Client, namespace: str, nodes: Nodes) -> None:
    script = "open('/data/starts', 'a').write('x'); print(open('/data/starts').read()); " + SLEEP
    main = container(script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    spec = workload("StatefulSet", "db", main, replicas=2, serviceName="db", volumeClaimTemplates=[claim])
    await kube.create(STATEFUL_SETS, spec, namespace)
    await kube.wait_for(STATEFUL_SETS, "db", namespace, until=_ready_replicas(2))
    first = await pod_with(kube, namespace, "db-0", is_ready)
    second = await pod_with(kube, namespace, "db-1", is_ready)
    assert first["metadata"]["creationTimestamp"] <= second["metadata"]["creationTimestamp"]
    await kube.delete(PODS, "db-0", namespace)
    again = await pod_with(
        kube, namespace, "db-0", lambda obj: is_ready(obj) and obj["metadata"]["uid"] != first["metadata"]["uid"]
    )
    assert again["metadata"]["name"] == "db-0"
    await _until_logged(nodes, namespace, "db-0", "xx")


async def test_a_daemon_set_follows_the_labels_of_nodes(kube: Client, namespace: str, nodes: Nodes) -> None:
    label = f"{namespace}.example/edge"
    daemon_set = workload("DaemonSet", "leaf", container(SLEEP))
    daemon_set["spec"]["template"]["spec"]["nodeSelector"] = {label: "true"}
    await kube.create(DAEMON_SETS, daemon_set, namespace)
    await kube.wait_for(
        DAEMON_SETS, "leaf", namespace, until=lambda obj: obj is not None and "status" in obj and not _desired(obj)
    )
    await _label(kube, nodes.names[1], {label: "true"})
    await kube.wait_for(DAEMON_SETS, "leaf", namespace, until=_status({"numberReady": 1, "desiredNumberScheduled": 1}))
    (only,) = await pods_of(kube, namespace, "leaf")
    assert only["spec"]["nodeName"] == nodes.names[1]
    await _label(kube, nodes.names[0], {label: "true"})
    await kube.wait_for(DAEMON_SETS, "leaf", namespace, until=_status({"numberReady": 2, "desiredNumberScheduled": 2}))
    await _label(kube, nodes.names[1], {label: None})
    await kube.wait_for(PODS, only["metadata"]["name"], namespace, until=is_gone)
    (other,) = await pods_of(kube, namespace, "leaf")
    assert other["spec"]["nodeName"] == nodes.names[0]


async def test_a_daemon_set_replaces_all_its_pods_at_once_when_it_may(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    # Pods of the new template never become ready: one after the other, the second node would keep its old pod.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}
    await kube.create(DAEMON_SETS, _on_our_nodes("leaf", updateStrategy=strategy), namespace)
    await kube.wait_for(DAEMON_SETS, "leaf", namespace, until=_status({"numberReady": 2, "desiredNumberScheduled": 2}))
    probe = {"exec": {"command": ["python", "-c", "raise SystemExit(1)"]}}
    change = [{"op": "add", "path": "/spec/template/spec/containers/0/readinessProbe", "value": probe}]
    await kube.patch(DAEMON_SETS, "leaf", change, namespace)
    await kube.wait_for(DAEMON_SETS, "leaf", namespace, until=_status({"updatedNumberScheduled": 2, "numberReady": 0}))


async def test_a_daemon_set_keeps_off_a_tainted_node_and_leaves_it_only_for_no_execute(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    first, second = nodes.names
    taint = {"key": "localcluster.test/site", "value": namespace, "effect": "NoSchedule"}
    await kube.patch(NODES, first, {"spec": {"taints": [taint]}})
    try:
        tolerant = _on_our_nodes("tolerant")
        tolerant["spec"]["template"]["spec"]["tolerations"] = [{"key": taint["key"], "operator": "Exists"}]
        for daemon_set in (_on_our_nodes("plain"), tolerant):
            await kube.create(DAEMON_SETS, daemon_set, namespace)
        await kube.wait_for(
            DAEMON_SETS, "tolerant", namespace, until=_status({"numberReady": 2, "desiredNumberScheduled": 2})
        )
        await kube.wait_for(
            DAEMON_SETS, "plain", namespace, until=_status({"numberReady": 1, "desiredNumberScheduled": 1})
        )
        (only,) = await pods_of(kube, namespace, "plain")
        assert only["spec"]["nodeName"] == second
        await kube.patch(NODES, second, {"spec": {"taints": [taint]}})
        await kube.wait_for(DAEMON_SETS, "plain", namespace, until=_status({"numberMisscheduled": 1}))
        await kube.patch(NODES, second, {"spec": {"taints": [{**taint, "effect": "NoExecute"}]}})
        await kube.wait_for(PODS, only["metadata"]["name"], namespace, until=is_gone)
        assert len(await pods_of(kube, namespace, "tolerant")) == 2
    finally:
        for name in nodes.names:
            await kube.patch(NODES, name, {"spec": {"taints": None}})


async def test_a_job_completes_although_it_has_a_sidecar(kube: Client, namespace: str, nodes: Nodes) -> None:
    job = _job("once", container("print('done')"), backoffLimit=0)
    sidecar = container(SLEEP, "side", restartPolicy="Always")
    job["spec"]["template"]["spec"]["initContainers"] = [sidecar]
    await kube.create(JOBS, job, namespace)
    done = await kube.wait_for(JOBS, "once", namespace, until=has_condition("Complete"))
    assert done is not None
    assert done["status"]["succeeded"] == 1
    (only,) = await pods_of(kube, namespace, "once")
    assert has_phase("Succeeded")(only)
    assert "terminated" in status_of(only, "side", "initContainerStatuses")["state"]


async def test_a_job_fails_after_its_backoff_limit(kube: Client, namespace: str, nodes: Nodes) -> None:
    await kube.create(JOBS, _job("never", container("raise SystemExit(1)"), backoffLimit=1), namespace)
    failed = await kube.wait_for(JOBS, "never", namespace, until=has_condition("Failed"))
    assert failed is not None
    assert failed["status"]["failed"] == 2


async def test_what_has_lost_all_owners_is_collected(kube: Client, namespace: str, nodes: Nodes) -> None:
    owner = await kube.create(
        CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}, namespace
    )
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    for name, owners in (("owned", [reference]), ("free", [])):
        metadata = {"name": name, "ownerReferences": owners}
        await kube.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}, namespace)
    await kube.delete(CONFIG_MAPS, "owner", namespace)
    await kube.wait_for(SECRETS, "owned", namespace, until=is_gone)
    assert await kube.find(SECRETS, "free", namespace) is not None


async def test_kubectl_deletes_a_deployment_after_its_pods_or_without_them(
    kube: Client, kubeconfig: Path, namespace: str, nodes: Nodes
) -> None:
    for name in ("first", "second"):
        await kube.create(DEPLOYMENTS, workload("Deployment", name, container(SLEEP)), namespace)
        await kube.wait_for(DEPLOYMENTS, name, namespace, until=has_condition("Available"))
    await _kubectl(kubeconfig, namespace, "delete", "deployment/first", "--cascade=foreground", "--timeout=30s")
    assert await pods_of(kube, namespace, "first") == []
    await _kubectl(kubeconfig, namespace, "delete", "deployment/second", "--cascade=orphan", "--timeout=30s")
    assert await kube.find(DEPLOYMENTS, "second", namespace) is None
    assert [is_ready(entry) for entry in await pods_of(kube, namespace, "second")] == [True]


async def test_a_service_has_the_addresses_of_its_pods_or_an_event_why_not(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    port = {"port": 80, "targetPort": "http"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    await kube.create(SERVICES, {**service, "spec": {"selector": {"app": "web"}, "ports": [port]}}, namespace)
    main = container(SLEEP, ports=[{"name": "http", "containerPort": 8000}])
    await kube.create(PODS, pod("web", main), namespace)
    running = await pod_with(kube, namespace, "web", is_ready)
    address = running["status"]["podIP"]

    def is_served(piece: Json | None) -> bool:
        endpoints = (piece or {}).get("endpoints") or []
        return [(entry["addresses"], entry["conditions"]["ready"]) for entry in endpoints] == [([address], True)]

    try:
        piece = await kube.wait_for(ENDPOINT_SLICES, "web", namespace, until=is_served, timeout=5)
    except TimeoutError:  # Kubernetes refuses loopback addresses here
        events, _ = await kube.list(EVENTS, namespace)
        assert "FailedToUpdateEndpointSlices" in {event["reason"] for event in events}
    else:
        assert piece is not None
        assert piece["ports"][0]["port"] == 8000


async def test_a_pod_that_fits_no_node_says_why_until_one_fits(kube: Client, namespace: str, nodes: Nodes) -> None:
    label = f"{namespace}.example/gpu"
    await kube.create(PODS, pod("picky", container(SLEEP), nodeSelector={label: "yes"}), namespace)
    pending = await pod_with(kube, namespace, "picky", has_condition("PodScheduled", "False"))
    condition = next(entry for entry in pending["status"]["conditions"] if entry["type"] == "PodScheduled")
    assert "nodes are available" in condition["message"]
    await _label(kube, nodes.names[0], {label: "yes"})
    placed = await pod_with(kube, namespace, "picky", is_ready)
    assert placed["spec"]["nodeName"] == nodes.names[0]
    assert pid_of(placed)


async def test_a_deleted_namespace_takes_its_workloads_with_it(kube: Client, namespace: str, nodes: Nodes) -> None:
    await kube.create(DEPLOYMENTS, workload("Deployment", "app", container(SLEEP)), namespace)
    await kube.wait_for(DEPLOYMENTS, "app", namespace, until=has_condition("Available"))
    await kube.delete(NAMESPACES, namespace)
    await kube.wait_for(NAMESPACES, namespace, until=is_gone, timeout=60)
    assert await pods_of(kube, namespace, "app") == []


@pytest.mark.parametrize("kind", ["certificate authority", "service account"])
async def test_a_namespace_gets_back_what_it_starts_with(kube: Client, namespace: str, nodes: Nodes, kind: str) -> None:
    resource, name = {
        "certificate authority": (CONFIG_MAPS, "kube-root-ca.crt"),
        "service account": (SERVICE_ACCOUNTS, "default"),
    }[kind]
    first = await kube.wait_for(resource, name, namespace, until=lambda obj: obj is not None)
    assert first is not None
    await kube.delete(resource, name, namespace)
    await kube.wait_for(
        resource,
        name,
        namespace,
        until=lambda obj: obj is not None and obj["metadata"]["uid"] != first["metadata"]["uid"],
    )


def _job(name: str, main: Json, **fields: int) -> Json:
    template = pod(name, main, restartPolicy="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
            **fields,
        },
    }


def _on_our_nodes(name: str, **fields: object) -> Json:
    """A DaemonSet for the nodes of the fixture: other tests leave nodes behind whose runner has ended."""
    daemon_set = workload("DaemonSet", name, container(SLEEP), **fields)
    term = {"matchExpressions": [{"key": "localcluster.test/number", "operator": "Exists"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    daemon_set["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": required}
    return daemon_set


def _status(expected: Json) -> Callable[[Json | None], bool]:
    def check(obj: Json | None) -> bool:
        status = (obj or {}).get("status", {})
        return all(status.get(key) == value for key, value in expected.items())

    return check


def _desired(daemon_set: Json) -> int:
    return int(daemon_set["status"].get("desiredNumberScheduled", 0))


def _ready_replicas(count: int) -> Callable[[Json | None], bool]:
    return lambda obj: obj is not None and obj.get("status", {}).get("readyReplicas") == count


async def _label(kube: Client, node: str, labels: dict[str, str | None]) -> None:
    await kube.patch(NODES, node, {"metadata": {"labels": labels}})


async def _until_logged(nodes: Nodes, namespace: str, name: str, text: str) -> None:
    await eventually(lambda: text in nodes.log(namespace, name), f"{name} prints {text!r}")


async def _kubectl(kubeconfig: Path, namespace: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        find_program("kubectl"),
        f"--kubeconfig={kubeconfig}",
        f"--namespace={namespace}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(kubeconfig.parent)},
    )
    output = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
    assert process.returncode == 0, output
    return output
