"""A node that loses its power: what dies, what stays, and what starts again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from localcluster.client import CONFIG_MAPS, NODES, PODS, Client, Json
from localcluster.node.spec import REBOOT_ANNOTATION
from tests.noderunner.proxy import Proxy
from tests.noderunner.test_runner_process import start_runner
from tests.noderunner.workloads import (
    SLEEP,
    Nodes,
    container,
    eventually,
    has_phase,
    is_alive,
    is_ready,
    pid_of,
    pod,
    pod_with,
    status_of,
    unique,
)

#: Notes starts and orderly ends in a file of its node.
NOTES = """
import signal, sys, time
name = sys.argv[1]
def note(word):
    with open("/host/notes", "a") as file: file.write(f"{name} {word}\\n")
def end(*_):
    note("ends"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
note("starts")
if name != "init": time.sleep(600)
for folder in ("/memory", "/disk"):
    with open(f"{folder}/runs", "a") as file: file.write("x")
"""
#: Ends once there is a file `open`.
GATE = "import os, time\nwhile not os.path.exists('/host/open'): time.sleep(0.05)"


async def reboot(kube: Client, node: str) -> None:
    await kube.patch(NODES, node, {"metadata": {"annotations": {REBOOT_ANNOTATION: unique("boot")}}})


def restarted(obj: Json) -> bool:
    return is_ready(obj) and bool(status_of(obj)["restartCount"])


async def test_after_a_reboot_the_same_pods_start_in_order_and_only_memory_is_lost(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    here, elsewhere = nodes.names
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("memory", "disk", "host")]

    def part(name: str, **fields: object) -> Json:
        return container(NOTES, name, args=[name], volumeMounts=mounts, **fields)

    volumes: list[Json] = [
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": f"/{namespace}", "type": "DirectoryOrCreate"}},
    ]
    side = part("side", restartPolicy="Always", startupProbe={"exec": {"command": ["python", "-c", "pass"]}})
    spec = pod("app", part("main"), initContainers=[side, part("init")], volumes=volumes, nodeName=here)
    await kube.create(PODS, spec, namespace)
    await kube.create(PODS, pod("once", container(SLEEP), restartPolicy="Never", nodeName=here), namespace)
    await kube.create(PODS, pod("other", container(SLEEP), nodeName=elsewhere), namespace)
    before = await pod_with(kube, namespace, "app", is_ready)
    other = await pod_with(kube, namespace, "other", is_ready)
    await pod_with(kube, namespace, "once", is_ready)
    notes = nodes.folder / "nodes" / here / namespace / "notes"
    await eventually(lambda: "main starts" in notes.read_text(), "main has started")

    await reboot(kube, here)
    after = await pod_with(kube, namespace, "app", restarted)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert status_of(after)["lastState"]["terminated"]["exitCode"] == 137
    assert not is_alive(pid_of(before))
    await eventually(lambda: notes.read_text().count("main starts") == 2, "main has started again")
    assert notes.read_text().splitlines() == ["side starts", "init starts", "main starts"] * 2
    assert (nodes.volume(after, "memory") / "runs").read_text() == "x"
    assert (nodes.volume(after, "disk") / "runs").read_text() == "xx"
    await pod_with(kube, namespace, "once", has_phase("Failed"))
    assert is_alive(pid_of(other))

    await kube.patch(NODES, here, {"metadata": {"labels": {"localcluster.test/changed": "yes"}}})
    await kube.delete(PODS, "app", namespace)
    await eventually(lambda: notes.read_text().endswith("main ends\nside ends\n"), "it ends as it always does")


async def test_a_node_reboots_while_the_api_server_is_away(
    kube: Client, kubeconfig: Path, namespace: str, work: Path
) -> None:
    node = unique("node")
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOUR": "blue"}}
    await kube.create(CONFIG_MAPS, settings, namespace)
    gate = work / "nodes" / node / namespace / "open"
    gate.parent.mkdir(parents=True)
    gate.touch()
    async with Proxy(kube.connection) as proxy:
        runner = start_runner(proxy.kubeconfig(kubeconfig, work / "kubeconfig"), work, node)
        try:
            token = {"serviceAccountToken": {"path": "token", "audience": "vault"}}
            volumes: list[Json] = [
                {"name": "host", "hostPath": {"path": f"/{namespace}"}},
                {"name": "token", "projected": {"sources": [token]}},
            ]
            mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
            script = f"import os; print(os.environ['COLOUR'], len(open('/token/token').read())); {SLEEP}"
            main = container(script, envFrom=[{"configMapRef": {"name": "settings"}}], volumeMounts=mounts)
            first = container(GATE, "gate", volumeMounts=mounts)
            spec = pod("app", main, initContainers=[first], volumes=volumes, nodeName=node)
            await kube.create(PODS, spec, namespace)
            running = await pod_with(kube, namespace, "app", is_ready)
            log = work / "logs" / f"{namespace}_app_main.log"
            await eventually(lambda: log.read_text(), "main has started")
            gate.unlink()
            await reboot(kube, node)
            await eventually(lambda: not is_alive(pid_of(running)), "main is dead")
            await proxy.cut()
            gate.touch()
            await eventually(lambda: len(log.read_text().splitlines()) == 2, "main has started again")
            first_line, second_line = log.read_text().splitlines()
            assert first_line == second_line
            await proxy.open()
            again = await pod_with(kube, namespace, "app", restarted)
            assert again["metadata"]["uid"] == running["metadata"]["uid"]
        finally:
            await asyncio.to_thread(runner.stop)
