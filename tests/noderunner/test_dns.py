"""Names of Services and of StatefulSets' pods, as a container's own resolver finds them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.client import PODS, SERVICES, STATEFUL_SETS, Client, Json
from localcluster.network.dns import HostsFile, hosts_text, records_of
from localcluster.process import LocalProcess
from tests.noderunner.workloads import (
    SLEEP,
    container,
    eventually,
    forget_node,
    is_alive,
    is_ready,
    pid_of,
    pod,
    pod_with,
    unique,
    workload,
)

#: Prints over and over what each of its arguments resolves to, one line for all of them.
RESOLVE = """
import socket, sys, time
def addresses(name):
    try:
        return ",".join(sorted({found[4][0] for found in socket.getaddrinfo(name, 1, socket.AF_INET)}))
    except OSError:
        return "-"
while True:
    print(*map(addresses, sys.argv[1:]), flush=True)
    time.sleep(0.05)
"""
SPAWNS = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEP}']).pid); {SLEEP}"


@pytest.fixture(scope="module")
def node() -> str:
    return unique("named")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("named")


@pytest.fixture(scope="module")
def runner(kubeconfig: Path, folder: Path, node: str) -> Iterator[LocalProcess]:
    """A node runner with cluster DNS."""
    command = [sys.executable, "-m", "localcluster.nodes", "--kubeconfig", str(kubeconfig), "--data-dir", str(folder)]
    process = LocalProcess.start("runner", [*command, "--node", node, "--cluster-dns"], log=folder / "runner.log")
    yield process
    process.stop()
    asyncio.run(forget_node(kubeconfig, node))


def headless(name: str) -> Json:
    ports = [{"port": 80}]
    spec = {"clusterIP": "None", "selector": {"app": name}, "ports": ports, "publishNotReadyAddresses": True}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def last_answer(folder: Path, namespace: str, pod_name: str) -> list[str]:
    path = folder / "logs" / f"{namespace}_{pod_name}_main.log"
    # The last line may not be complete yet.
    lines = path.read_text().splitlines()[:-1] if path.exists() else []
    return lines[-1].split() if lines else []


def program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()


async def test_a_container_resolves_services_by_their_names_and_each_pod_has_its_own_localhost(
    kube: Client, namespace: str, runner: LocalProcess, folder: Path, node: str
) -> None:
    names = ["web", f"web.{namespace}", f"web.{namespace}.svc", f"web.{namespace}.svc.cluster.local"]
    asker = container(RESOLVE, args=[*names, "localhost", "kubernetes.default.svc", f"later.{namespace}.svc"])
    await kube.create(PODS, pod("asker", asker, nodeName=node), namespace)
    ports = [{"port": 80}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    web = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    made = await kube.create(SERVICES, web, namespace)
    asking = await pod_with(kube, namespace, "asker", is_ready)
    address = made["spec"]["clusterIP"]
    expected = [*[address] * 4, asking["status"]["podIP"], kube.connection.host, "-"]
    await eventually(lambda: last_answer(folder, namespace, "asker") == expected, f"the container sees {expected}")


async def test_a_stateful_sets_pod_keeps_its_name_and_address_when_it_is_made_anew(
    kube: Client, namespace: str, runner: LocalProcess, folder: Path, node: str
) -> None:
    await kube.create(SERVICES, headless("db"), namespace)
    asker = container(RESOLVE, args=[f"db-1.db.{namespace}.svc", "db-0.db", f"db.{namespace}.svc.cluster.local"])
    await kube.create(PODS, pod("asker", asker, nodeName=node), namespace)
    # Never ready, and published nonetheless.
    probe = {"exec": {"command": ["python", "-c", "raise SystemExit(1)"]}}
    main = container(SLEEP, readinessProbe=probe)
    spec = workload("StatefulSet", "db", main, replicas=2, serviceName="db", podManagementPolicy="Parallel")
    spec["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    await kube.create(STATEFUL_SETS, spec, namespace)
    pods = [await pod_with(kube, namespace, name, _has_address) for name in ("db-0", "db-1")]
    first, second = (entry["status"]["podIP"] for entry in pods)
    expected = [second, first, ",".join(sorted((first, second)))]
    await eventually(lambda: last_answer(folder, namespace, "asker") == expected, f"the container sees {expected}")
    await kube.delete(PODS, "db-1", namespace)
    await pod_with(
        kube,
        namespace,
        "db-1",
        lambda obj: _has_address(obj) and obj["metadata"]["uid"] != pods[1]["metadata"]["uid"],
    )
    await eventually(lambda: last_answer(folder, namespace, "asker") == expected, f"the container sees {expected}")


async def test_names_are_not_rewritten_where_containers_resolve_them(
    kube: Client, namespace: str, runner: LocalProcess, folder: Path, node: str
) -> None:
    script = "import os, sys; print(os.environ['URL'], sys.argv[1], flush=True); print('end', flush=True); " + SLEEP
    url = f"https://web.{namespace}.svc:8200"
    main = container(script, args=[url], env=[{"name": "URL", "value": url}])
    await kube.create(SERVICES, {**headless("web")}, namespace)
    await kube.create(PODS, pod("told", main, nodeName=node), namespace)
    await eventually(lambda: last_answer(folder, namespace, "told") == [url, url], "the container is told the name")


async def test_a_token_is_at_the_place_that_programs_have_built_in(
    kube: Client, namespace: str, runner: LocalProcess, folder: Path, node: str
) -> None:
    # Made of parts, so that the runner cannot rewrite it.
    place = "'/'.join(['', 'var', 'run', 'secrets', 'kubernetes.io', 'serviceaccount'])"
    script = f"import os; print(*sorted(n for n in os.listdir({place}) if n[0] != '.')); print('end', flush=True); "
    await kube.create(PODS, pod("reader", container(script + SLEEP), nodeName=node), namespace)
    expected = ["ca.crt", "namespace", "token"]
    await eventually(lambda: last_answer(folder, namespace, "reader") == expected, "the container sees its token")
    assert not os.path.exists("/run/secrets/kubernetes.io")  # noqa: ASYNC240 — no more than a look


async def test_nothing_in_a_mount_namespace_outlives_a_killed_runner(
    kube: Client, kubeconfig: Path, namespace: str, work: Path, spare_node: str
) -> None:
    command = [sys.executable, "-m", "localcluster.nodes", "--kubeconfig", str(kubeconfig), "--data-dir", str(work)]
    process = LocalProcess.start("runner", [*command, "--node", spare_node, "--cluster-dns"], log=work / "runner.log")
    try:
        await kube.create(PODS, pod("parent", container(SPAWNS), nodeName=spare_node), namespace)
        running = await pod_with(kube, namespace, "parent", is_ready)
        log = work / "logs" / f"{namespace}_parent_main.log"
        await eventually(lambda: log.exists() and log.read_text().split(), "the child is started")
        pids = [pid_of(running), int(log.read_text())]
        assert program_of(pids[0]) == sys.executable
        os.kill(process.pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, pids)), "container and child are gone")
    finally:
        process.stop()


def _has_address(obj: Json) -> bool:
    return bool(obj.get("status", {}).get("podIP"))


def service(namespace: str, name: str, address: str, **spec: Any) -> Json:
    spec = {"clusterIP": address, "selector": {"app": "a"}, "ports": [], **spec}
    return {"metadata": {"name": name, "namespace": namespace, "uid": name}, "kind": "Service", "spec": spec}


def member(namespace: str, name: str, address: str, **spec: Any) -> Json:
    metadata = {"name": name, "namespace": namespace, "uid": name, "labels": {"app": "a"}}
    spec = {"hostname": name, "subdomain": "peers", **spec}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": metadata, "spec": spec, "status": {"podIP": address, "conditions": conditions}}


def test_records_are_of_services_that_are_served_and_of_headless_ones_with_their_pods() -> None:
    services = [
        {**made, "apiVersion": "v1"}
        for made in (
            service("n", "web", "127.2.0.1"),
            service("n", "peers", "None"),
            service("m", "peers", "None"),
            service("n", "elsewhere", "10.96.0.7"),
            service("n", "by-hand", "127.2.0.2", selector=None),
        )
    ]
    pods = [
        member("n", "p-0", "127.9.0.1"),
        member("n", "p-1", "127.9.0.2", subdomain="other"),
        {**member("n", "p-2", "127.9.0.3"), "status": {"podIP": "127.9.0.3"}},
    ]
    assert dict(records_of(services, pods)) == {
        ("n", "web"): ["127.2.0.1"],
        ("n", "peers"): ["127.9.0.1", "127.9.0.2"],
        ("n", "p-0.peers"): ["127.9.0.1"],
    }


def test_short_names_are_those_of_the_pods_own_namespace(work: Path) -> None:
    records = {("n", "web"): ["127.2.0.1"], ("m", "web"): ["127.2.0.2"]}
    assert hosts_text(HostsFile(work, "n", "me", "127.9.0.1"), records, "127.0.0.1").splitlines() == [
        "127.9.0.1 localhost me",
        "127.0.0.1 kubernetes.default.svc.cluster.local kubernetes.default.svc kubernetes.default",
        "127.2.0.2 web.m.svc.cluster.local web.m.svc web.m",
        "127.2.0.1 web.n.svc.cluster.local web.n.svc web.n web",
    ]
    assert "kubernetes" not in hosts_text(HostsFile(work, "n", "me", "127.9.0.1"), {}, "api.example.com")
