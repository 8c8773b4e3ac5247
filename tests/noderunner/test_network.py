"""Services and uplinks as pods on two nodes see them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.client import NODES, PODS, SERVICES, Client, Json, is_gone
from localcluster.network.clients import Clients
from localcluster.network.services import Endpoint, served
from localcluster.network.uplinks import Uplink
from localcluster.node.spec import UPLINK_ANNOTATION
from localcluster.process import LocalProcess
from tests.noderunner.workloads import Nodes, container, eventually, is_ready, pod, pod_with

#: Answers every connection with the name of its own node.
SERVER = """
import os, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(os.environ["NODE"].encode() + b"\\n"); self.request.recv(1)
socketserver.ThreadingTCPServer(("127.0.0.1", 9000), Handler).serve_forever()
"""
#: Connects over and over, and prints what the server said or the error; once it is connected it stays so.
CLIENT = """
import socket, sys, time
host, port = sys.argv[1:]
while True:
    try:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            word = connection.recv(100).decode().strip()
            print(word, flush=True)
            connection.recv(100)
            print("ended", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
        time.sleep(0.05)
"""
NODE_NAME = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]


def server(name: str, node: str) -> Json:
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    ports = [{"name": "tcp", "containerPort": 9000}]
    labels = {"app": "server"}
    made = pod(name, container(SERVER, env=NODE_NAME, readinessProbe=probe, ports=ports), nodeName=node)
    return {**made, "metadata": {"name": name, "labels": labels}}


def client(name: str, node: str, host: str, port: int) -> Json:
    return pod(name, container(CLIENT, args=[host, str(port)]), nodeName=node)


async def service(kube: Client, namespace: str, **spec: Any) -> str:
    """Create the Service `server` on port 80; its address."""
    ports = [{"port": 80, "targetPort": "tcp"}]
    made = await kube.create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server"},
            "spec": {"selector": {"app": "server"}, "ports": ports, **spec},
        },
        namespace,
    )
    return str(made["spec"]["clusterIP"])


async def ask(host: str, port: int = 80) -> str:
    """What a client that is no pod is told: a node's name, or what went wrong."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    try:
        return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    except ConnectionResetError:
        return "reset"
    finally:
        writer.close()


async def until_told(host: str, *expected: str) -> None:
    """Ask until every one of the expected answers has been given, and no other one in between."""
    deadline, missing = time.monotonic() + 15, set(expected)
    while missing:
        answer = await ask(host)
        missing = missing - {answer} if answer in expected else set(expected)
        assert time.monotonic() < deadline, f"not within 15 s: {missing}"
        await asyncio.sleep(0.02)


async def test_a_service_forwards_to_its_ready_pods_and_refuses_while_there_is_none(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    address = await service(kube, namespace)
    assert await ask(address) == "refused"
    for name, node in zip(("one", "two"), nodes.names, strict=True):
        await kube.create(PODS, server(name, node), namespace)
    await until_told(address, *nodes.names)
    await kube.delete(PODS, "one", namespace)
    await kube.wait_for(PODS, "one", namespace, until=is_gone)
    await until_told(address, nodes.names[1])
    await kube.patch(SERVICES, "server", {"spec": {"ports": [{"port": 81, "targetPort": "tcp"}]}}, namespace)
    await until_told(address, "refused")
    await kube.delete(SERVICES, "server", namespace)


async def test_a_local_service_serves_the_clients_of_its_node_only(kube: Client, namespace: str, nodes: Nodes) -> None:
    here, there = nodes.names
    address = await service(kube, namespace, internalTrafficPolicy="Local")
    await kube.create(PODS, server("here", here), namespace)
    await pod_with(kube, namespace, "here", is_ready)
    await until_told(address, "reset")  # a client that is no pod has no node
    await kube.create(PODS, client("near", here, address, 80), namespace)
    await kube.create(PODS, client("far", there, address, 80), namespace)
    await eventually(lambda: here in nodes.log(namespace, "near").split(), "the near client is served")
    await eventually(lambda: "ConnectionResetError" in nodes.log(namespace, "far"), "the far client is refused")
    await kube.create(PODS, server("there", there), namespace)
    await eventually(lambda: there in nodes.log(namespace, "far").split(), "the far client has a server of its own")
    assert here not in nodes.log(namespace, "far").split()
    assert there not in nodes.log(namespace, "near").split()


@pytest.fixture
async def world(nodes: Nodes) -> AsyncIterator[Uplink]:
    """A server behind the nodes' uplink, which says `world`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"world\n")
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    host, port = nodes.uplink.target
    running = await asyncio.start_server(answer, host, port)
    yield nodes.uplink
    running.close()


async def test_a_cut_uplink_resets_and_refuses_the_pods_of_its_node_until_it_heals(
    kube: Client, namespace: str, nodes: Nodes, world: Uplink
) -> None:
    cut, whole = nodes.names
    for name, node in (("cut", cut), ("whole", whole)):
        await kube.create(PODS, client(name, node, *world.listen), namespace)
        await eventually(lambda name=name: nodes.log(namespace, name).split() == ["world"], f"{name} is connected")
    try:
        await kube.patch(NODES, cut, {"metadata": {"annotations": {UPLINK_ANNOTATION: "cut"}}})
        await eventually(
            lambda: nodes.log(namespace, "cut").split().count("ConnectionResetError") > 2,
            "the connection is reset, and new ones are refused",
        )
        assert nodes.log(namespace, "whole").split() == ["world"]
        assert await ask(*world.listen) == "world"  # no pod
    finally:
        await kube.patch(NODES, cut, {"metadata": {"annotations": {UPLINK_ANNOTATION: None}}})
    await eventually(lambda: nodes.log(namespace, "cut").split()[-1] == "world", "the uplink has healed")
    assert nodes.log(namespace, "whole").split() == ["world"]


def test_what_is_served_follows_from_services_and_ready_pods() -> None:
    def behind(name: str, node: str, *, ready: bool) -> Json:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        metadata = {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}}
        return {
            "metadata": metadata,
            "spec": {"nodeName": node, "containers": []},
            "status": {"podIP": f"127.9.0.{len(name)}", "conditions": conditions},
        }

    def of(address: str, **fields: Any) -> Json:
        metadata = {"name": address, "namespace": "n", "uid": address}
        spec = {"clusterIP": address, "ports": [{"port": 1, "targetPort": 2, "protocol": "TCP"}], **fields}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    selector = {"app": "a"}
    services = [
        of("127.2.0.1", selector=selector, internalTrafficPolicy="Local"),
        of("127.2.0.2", selector={"app": "b"}),
        of("127.2.0.3"),
        of("127.2.0.4", selector=selector, ports=[{"port": 1, "targetPort": 2, "protocol": "UDP"}]),
        of("10.96.0.1", selector=selector),
        of("None", selector=selector),
    ]
    pods = [behind("p", "near", ready=True), behind("pp", "far", ready=True), behind("ppp", "far", ready=False)]
    found = served(services, pods)
    assert set(found) == {("127.2.0.1", 1)}
    port = found["127.2.0.1", 1]
    assert port.reachable_from("near") == [Endpoint(("127.9.0.1", 2), "near")]
    assert port.reachable_from("far") == [Endpoint(("127.9.0.2", 2), "far")]
    assert port.reachable_from(None) == []


def test_an_uplink_is_written_as_two_addresses() -> None:
    assert Uplink.parse("127.0.0.3:1=127.0.0.2:2") == Uplink(("127.0.0.3", 1), ("127.0.0.2", 2))
    for wrong in ("127.0.0.3:1", "127.0.0.3=127.0.0.2:2", "a:b=c:d"):
        with pytest.raises(ValueError, match="write an uplink as"):
            Uplink.parse(wrong)


def test_the_client_is_found_by_its_container_even_from_a_session_of_its_own(work: Path) -> None:
    connect = "import socket, time; made = socket.create_connection(('127.0.0.1', {port})); time.sleep(60)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = connect.format(port=listener.getsockname()[1])
        spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], start_new_session=True)"
        for script in (code, spawn):
            process = LocalProcess.start("client", [sys.executable, "-c", script], log=work / "client.log")
            accepted, client = listener.accept()
            try:
                own = accepted.getsockname()
                assert Clients({process.pid: "edge"}.get).locate(client, own) == "edge"
                assert Clients({}.get).locate(client, own) is None
                assert Clients({process.pid: "edge"}.get).locate(("127.0.0.1", 1), own) is None
            finally:
                for pid in children(process.pid):  # not in the process group that `stop` ends
                    os.kill(pid, signal.SIGKILL)
                process.stop()
                accepted.close()


def children(pid: int) -> list[int]:
    """The children of a process that has one thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
