"""A pod shaped like a leaf: nats-server beside a native sidecar that configures it, behind a node-local Service."""

from __future__ import annotations

import asyncio
from pathlib import Path

from localcluster.client import DAEMON_SETS, PODS, SERVICES, Client, Json
from localcluster.stack import find_program
from tests.noderunner.workloads import (
    Nodes,
    container,
    eventually,
    is_ready,
    pod,
    pod_with,
    pods_of,
    status_of,
    workload,
)

#: Writes the server's configuration, and has it read again once the server runs.
SIDECAR = """
import os, pathlib, signal, time
def write(debug):
    node, address = os.environ["NODE"], os.environ["ADDRESS"]
    text = f"server_name: {node}\\nlisten: {address}:4222\\ndebug: {debug}\\nport: 4222\\n"
    pathlib.Path("/shared/nats.conf").write_text(text)
write("false")
pid = pathlib.Path("/shared/nats.pid")
while not pid.exists(): time.sleep(0.05)
write("true")
os.kill(int(pid.read_text()), signal.SIGHUP)
print("host", os.environ["HOST"], flush=True)
time.sleep(600)
"""
CLIENT = """
import os, socket, time
host, port = os.environ["LEAF"].split(":")
while True:
    try:
        print(socket.create_connection((host, int(port)), timeout=5).recv(4096).decode(), flush=True)
        time.sleep(600)
    except OSError:
        time.sleep(0.1)
"""


def leaf() -> Json:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    fields = {"NODE": "spec.nodeName", "ADDRESS": "status.podIP", "HOST": "status.hostIP"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    written = {"exec": {"command": ["python", "-c", "open('/shared/nats.conf')"]}, "periodSeconds": 1}
    sidecar = container(SIDECAR, "sidecar", env=env, volumeMounts=mounts, restartPolicy="Always", startupProbe=written)
    server: Json = {
        "name": "nats",
        "image": "nats:2.12-alpine",
        "args": ["-c", "/shared/nats.conf", "-P", "/shared/nats.pid"],
        "volumeMounts": mounts,
        "readinessProbe": {"tcpSocket": {"port": 4222}, "periodSeconds": 1},
    }
    daemon_set = workload("DaemonSet", "leaf", server)
    daemon_set["spec"]["template"]["spec"] |= {
        "initContainers": [sidecar],
        "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory"}}],
        "shareProcessNamespace": True,
        "securityContext": {"runAsUser": 0},
        "nodeSelector": {"localcluster.test/number": "0"},
    }
    return daemon_set


async def test_a_leaf_is_configured_reloaded_and_reached_by_the_pods_of_its_node(
    kube: Client, kubeconfig: Path, namespace: str, nodes: Nodes
) -> None:
    node = nodes.names[0]
    await kube.create(DAEMON_SETS, leaf(), namespace)
    spec = {"selector": {"app": "leaf"}, "ports": [{"port": 4222}], "internalTrafficPolicy": "Local"}
    metadata = {"name": "leaf-net"}
    await kube.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, namespace)
    name = f"leaf-net.{namespace}.svc:4222"
    client = container(CLIENT, env=[{"name": "LEAF", "value": name}])
    await kube.create(PODS, pod("client", client, nodeName=node), namespace)
    await eventually(lambda: f'"server_name":"{node}"' in nodes.log(namespace, "client"), "the leaf greets the client")
    (only,) = await pods_of(kube, namespace, "leaf")
    only = await pod_with(kube, namespace, only["metadata"]["name"], is_ready)
    process = await asyncio.create_subprocess_exec(
        find_program("kubectl"),
        *(f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", "logs", only["metadata"]["name"], "-c", "nats"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert b"Reloaded: debug = true" in output
    log = nodes.log(namespace, only["metadata"]["name"], "sidecar")
    assert f"host {only['status']['hostIP']}" in log
    assert status_of(only, "nats")["restartCount"] == 0
