"""The runner as a process: its end, its death, and an API server that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from localcluster.client import NODES, PODS, Client, Json, is_gone
from localcluster.node.spec import NodeSpec, Taint
from localcluster.nodes import parse_image
from localcluster.process import LocalProcess
from tests.noderunner.proxy import Proxy
from tests.noderunner.workloads import (
    SLEEP,
    container,
    eventually,
    is_alive,
    is_ready,
    pid_of,
    pod,
    pod_with,
    status_of,
)

SPAWNS = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEP}']).pid); {SLEEP}"


def start_runner(kubeconfig: Path, folder: Path, node: str) -> LocalProcess:
    command = [sys.executable, "-m", "localcluster.nodes", "--kubeconfig", str(kubeconfig), "--data-dir", str(folder)]
    return LocalProcess.start("second runner", [*command, "--node", node], log=folder / "runner.log")


async def spawning_pod(kube: Client, namespace: str, folder: Path, node: str) -> tuple[Json, list[int]]:
    """A ready pod on `node` whose container has started a child; and the pids of both."""
    await kube.create(PODS, pod("parent", container(SPAWNS), nodeName=node), namespace)
    running = await pod_with(kube, namespace, "parent", is_ready)
    log = folder / "logs" / f"{namespace}_parent_main.log"
    await eventually(lambda: log.exists() and log.read_text().split(), "the child is started")
    return running, [pid_of(running), int(log.read_text().split()[-1])]


async def test_nothing_is_left_behind_when_the_runner_is_killed_and_its_successor_goes_on(
    kube: Client, kubeconfig: Path, namespace: str, work: Path, spare_node: str
) -> None:
    first = start_runner(kubeconfig, work, spare_node)
    second = None
    try:
        running, pids = await spawning_pod(kube, namespace, work, spare_node)
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, pids)), "container and child are gone")
        second = start_runner(kubeconfig, work, spare_node)
        again = await pod_with(
            kube, namespace, "parent", lambda obj: is_ready(obj) and status_of(obj)["restartCount"] == 1
        )
        assert again["metadata"]["uid"] == running["metadata"]["uid"]
        await kube.delete(PODS, "parent", namespace)
        await kube.wait_for(PODS, "parent", namespace, until=is_gone)
    finally:
        first.stop()
        if second is not None:
            second.stop()


async def test_pods_run_on_while_the_api_server_is_away_and_changes_are_found_afterwards(
    kube: Client, kubeconfig: Path, namespace: str, work: Path, spare_node: str
) -> None:
    async with Proxy(kube.connection) as proxy:
        runner = start_runner(proxy.kubeconfig(kubeconfig, work / "kubeconfig"), work, spare_node)
        try:
            for name in ("stays", "goes"):
                await kube.create(PODS, pod(name, container(SLEEP), nodeName=spare_node), namespace)
            stays = await pod_with(kube, namespace, "stays", is_ready)
            goes = await pod_with(kube, namespace, "goes", is_ready)
            await proxy.cut()
            await kube.delete(PODS, "goes", namespace, grace_seconds=0)
            await kube.create(PODS, pod("comes", container(SLEEP), nodeName=spare_node), namespace)
            await kube.delete(NODES, spare_node)
            assert is_alive(pid_of(stays))
            await proxy.open()
            await pod_with(kube, namespace, "comes", is_ready)
            await eventually(lambda: not is_alive(pid_of(goes)), "the deleted pod has ended")
            await kube.wait_for(NODES, spare_node, until=lambda obj: obj is not None)
            assert is_alive(pid_of(stays))
        finally:
            # In a thread: the proxy, which serves the runner's last requests, lives in this event loop.
            await asyncio.to_thread(runner.stop)


async def test_sigterm_stops_all_containers_within_five_seconds(
    kube: Client, kubeconfig: Path, namespace: str, work: Path, spare_node: str
) -> None:
    runner = start_runner(kubeconfig, work, spare_node)
    try:
        _, pids = await spawning_pod(kube, namespace, work, spare_node)
        began = time.monotonic()
        runner.signal(signal.SIGTERM)
        assert runner.wait(10) == 0, runner.tail()
        assert time.monotonic() - began < 5
        await eventually(lambda: not any(map(is_alive, pids)), "container and child are gone")
    finally:
        runner.stop()


def test_a_node_is_written_as_a_name_with_labels_and_taints() -> None:
    text = "edge-1,zone=north,edge=,taint:site=far:NoSchedule,taint:slow=:NoExecute"
    node = NodeSpec.parse(text)
    assert (node.name, node.labels) == ("edge-1", {"zone": "north", "edge": ""})
    assert node.taints == (Taint("site", "far", "NoSchedule"), Taint("slow", "", "NoExecute"))
    assert str(node) == text
    with pytest.raises(ValueError, match="write a node as"):
        NodeSpec.parse("edge-1,zone")
    with pytest.raises(ValueError, match="write a taint as"):
        NodeSpec.parse("edge-1,taint:site=far:Sometimes")


def test_an_image_is_written_as_a_name_with_a_command() -> None:
    assert parse_image("acme/app=python -m 'acme app'") == ("acme/app", ["python", "-m", "acme app"])
    with pytest.raises(ValueError, match="write an image as"):
        parse_image("acme/app")
