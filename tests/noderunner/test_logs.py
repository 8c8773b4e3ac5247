"""`kubectl logs` as users run it: API server, kubelet endpoint of the node runner, and log files together."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from localcluster.client import EVENTS, NODES, PODS, Client
from localcluster.node.logs import LogOptions, Output
from localcluster.stack import Authority, find_program
from tests.noderunner.workloads import (
    SLEEP,
    Nodes,
    container,
    eventually,
    has_phase,
    is_ready,
    pod,
    pod_with,
    status_of,
    unique,
)

READY_FILE = {"exec": {"command": ["test", "-e", "ready"]}}
PRINTS = f"print('one'); print('two'); print('three'); open('ready', 'w').close(); {SLEEP}"
#: Prints one line, and another one when it is told to end.
UNTIL_TERM = """
import signal, sys, time
def end(*_):
    print("last"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("first"); open("ready", "w").close(); time.sleep(600)
"""
#: Ends its first run with 1, and stays in its second.
TWICE = """
import os, sys, time
if not os.path.exists("again"):
    open("again", "w").close(); print("run 1"); sys.exit(1)
print("run 2"); open("ready", "w").close(); time.sleep(600)
"""

#: Runs kubectl with these arguments in the test's namespace: exit status, output and errors.
Kubectl = Callable[..., Awaitable[tuple[int, str, str]]]


def printing(script: str, name: str = "main") -> dict[str, object]:
    """A container that is ready once its script has made the file `ready`."""
    return container(script, name, readinessProbe={**READY_FILE, "periodSeconds": 1})


def kubectl_command(kubeconfig: Path, namespace: str, work: Path, *arguments: str) -> list[str]:
    return [
        find_program("kubectl"),
        f"--kubeconfig={kubeconfig}",
        f"--cache-dir={work / 'cache'}",
        f"--namespace={namespace}",
        *arguments,
    ]


@pytest.fixture
def kubectl(kubeconfig: Path, namespace: str, work: Path) -> Kubectl:
    async def run(*arguments: str) -> tuple[int, str, str]:
        command = kubectl_command(kubeconfig, namespace, work, *arguments)
        env = {"PATH": os.environ["PATH"], "HOME": str(work)}
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, env=env, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


async def test_logs_of_a_pod_and_their_last_lines(kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl) -> None:
    # On the second node, whose address is not the one that the runner claimed.
    await kube.create(PODS, pod("prints", printing(PRINTS), nodeName=nodes.names[1]), namespace)
    await pod_with(kube, namespace, "prints", is_ready)
    assert await kubectl("logs", "prints") == (0, "one\ntwo\nthree\n", "")
    assert await kubectl("logs", "prints", "--tail=2") == (0, "two\nthree\n", "")
    assert await kubectl("logs", "prints", "--tail=0") == (0, "", "")
    assert await kubectl("logs", "prints", "--limit-bytes=5") == (0, "one\nt", "")
    assert await kubectl("logs", "-l", "app=prints", "--tail=1") == (0, "three\n", "")


async def test_logs_of_every_kind_of_container(kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl) -> None:
    init = [container("print('prepared')", "init"), {**printing(PRINTS, "proxy"), "restartPolicy": "Always"}]
    spec = pod("many", printing(PRINTS), container(f"print('beside'); {SLEEP}", "beside"), initContainers=init)
    await kube.create(PODS, spec, namespace)
    await pod_with(kube, namespace, "many", is_ready)
    assert await kubectl("logs", "many", "-c", "init") == (0, "prepared\n", "")
    assert await kubectl("logs", "many", "-c", "proxy", "--tail=1") == (0, "three\n", "")
    assert await kubectl("logs", "many", "-c", "main", "--tail=1") == (0, "three\n", "")


async def test_following_ends_with_the_container(
    kube: Client, namespace: str, nodes: Nodes, kubeconfig: Path, work: Path
) -> None:
    await kube.create(PODS, pod("talks", printing(UNTIL_TERM)), namespace)
    await pod_with(kube, namespace, "talks", is_ready)
    command = kubectl_command(kubeconfig, namespace, work, "logs", "-f", "talks")
    following = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert following.stdout is not None
    assert await asyncio.wait_for(following.stdout.readline(), 20) == b"first\n"
    await kube.delete(PODS, "talks", namespace)
    assert await asyncio.wait_for(following.stdout.read(), 20) == b"last\n"
    assert await asyncio.wait_for(following.wait(), 20) == 0


async def test_a_follower_that_goes_away_leaves_nothing_open(
    kube: Client, namespace: str, nodes: Nodes, kubeconfig: Path, work: Path
) -> None:
    await kube.create(PODS, pod("quiet", printing(PRINTS)), namespace)
    await pod_with(kube, namespace, "quiet", is_ready)
    log = nodes.folder / "logs" / f"{namespace}_quiet_main.log"

    def is_read() -> bool:
        return any(path.resolve() == log for path in Path(f"/proc/{nodes.process.pid}/fd").iterdir())

    command = kubectl_command(kubeconfig, namespace, work, "logs", "-f", "quiet")
    following = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        await eventually(is_read, "the log is followed")
    finally:
        following.kill()
        await following.wait()
    await eventually(lambda: not is_read(), "nobody reads the log any more")


async def test_each_run_of_a_container_has_a_log_of_its_own(
    kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    await kube.create(PODS, pod("twice", printing(TWICE)), namespace)
    await pod_with(kube, namespace, "twice", lambda obj: is_ready(obj) and status_of(obj)["restartCount"] == 1)
    assert await kubectl("logs", "twice") == (0, "run 2\n", "")
    assert await kubectl("logs", "twice", "--previous") == (0, "run 1\n", "")


async def test_a_finished_pod_keeps_its_log_and_has_no_previous_one(
    kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    await kube.create(PODS, pod("once", container("print('done')"), restartPolicy="Never"), namespace)
    await pod_with(kube, namespace, "once", has_phase("Succeeded"))
    assert await kubectl("logs", "once", "-f") == (0, "done\n", "")
    code, _, errors = await kubectl("logs", "once", "--previous")
    assert (code, 'previous terminated container "main" in pod "once" not found' in errors) == (1, True)


async def test_a_container_that_must_be_named_or_does_not_exist_is_refused(
    kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    await kube.create(PODS, pod("two", container(SLEEP, "a"), container(SLEEP, "b")), namespace)
    path = f"/api/v1/namespaces/{namespace}/pods/two/log"
    code, _, errors = await kubectl("get", "--raw", path)
    assert code == 1
    assert "(BadRequest): a container name must be specified for pod two, choose one of: [a b]" in errors
    code, _, errors = await kubectl("get", "--raw", f"{path}?container=c")
    assert (code, "(BadRequest): container c is not valid for pod two" in errors) == (1, True)


async def test_a_container_that_has_not_started_says_what_it_waits_for(
    kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    missing = container(SLEEP, envFrom=[{"configMapRef": {"name": "absent"}}])
    await kube.create(PODS, pod("waits", missing), namespace)
    await pod_with(kube, namespace, "waits", lambda obj: "CreateContainerConfigError" in str(obj.get("status")))
    code, _, errors = await kubectl("logs", "waits")
    assert code == 1
    assert 'container "main" in pod "waits" is waiting to start: CreateContainerConfigError' in errors


async def test_a_pod_without_a_node_has_an_empty_log(
    kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    await kube.create(PODS, pod("homeless", container(SLEEP), nodeSelector={"no": "such"}), namespace)
    assert await kubectl("logs", "homeless") == (0, "", "")


@pytest.fixture
async def lost_node(kube: Client, namespace: str) -> AsyncIterator[str]:
    """A Node where no kubelet listens, with a pod `lost`."""
    name = unique("lost")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    await kube.create(NODES, node)
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    await kube.patch(NODES, name, {"status": status}, subresource="status")
    await kube.create(PODS, pod("lost", container(SLEEP), nodeName=name), namespace)
    yield name
    await kube.delete(PODS, "lost", namespace, grace_seconds=0)


async def test_a_node_that_does_not_answer_and_one_that_is_gone(
    kube: Client, namespace: str, lost_node: str, kubectl: Kubectl
) -> None:
    code, _, errors = await kubectl("logs", "lost")
    assert code == 1
    assert f'Get "https://127.0.0.1:1/containerLogs/{namespace}/lost/main' in errors
    await kube.delete(NODES, lost_node)
    code, _, errors = await kubectl("logs", "lost")
    # A kube-apiserver takes the node for a pod in this message.
    assert code == 1
    assert "(NotFound)" in errors
    assert f'"{lost_node}" not found' in errors


@pytest.mark.parametrize("option", ["--timestamps", "--since=1m", "--since-time=2026-01-01T00:00:00Z"])
async def test_what_needs_the_time_of_a_line_is_refused(
    option: str, kube: Client, namespace: str, nodes: Nodes, kubectl: Kubectl
) -> None:
    await kube.create(PODS, pod("plain", printing(PRINTS)), namespace)
    await pod_with(kube, namespace, "plain", is_ready)
    code, _, errors = await kubectl("logs", "plain", option)
    assert code == 1
    assert "is not supported: the node runner does not know when a line was printed" in errors


@pytest.mark.parametrize("shown", ["nothing", "a certificate of another authority"])
async def test_only_the_api_server_may_ask_a_node_for_logs(
    shown: str, kube: Client, nodes: Nodes, authority: Authority
) -> None:
    status = (await kube.get(NODES, nodes.names[0]))["status"]
    host, port = status["addresses"][0]["address"], status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown != "nothing":
        context.load_cert_chain(*authority.issue("stranger", ["stranger"]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"https://{host}:{port}/containerLogs/a/b/c")


async def test_kubectl_shows_when_an_event_of_the_newer_api_was_last_seen(
    kube: Client, namespace: str, kubectl: Kubectl
) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": namespace},
        "reason": "Tested",
        "action": "Test",
        "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingComponent": "localcluster.test/tests",
        "reportingInstance": "tests-1",
    }
    series = {"count": 2, "lastObservedTime": "2026-01-11T00:00:00.000000Z"}
    await kube.create(EVENTS, {**event, "metadata": {"name": "single"}}, namespace)
    await kube.create(EVENTS, {**event, "metadata": {"name": "series"}, "series": series}, namespace)
    seen = {}
    for name in ("single", "series"):
        code, output, errors = await kubectl("get", "event", name)
        assert code == 0, errors
        header, row = output.splitlines()
        seen[name] = row[header.index("LAST SEEN") :].split()[0]
    days = {name: int(age.removesuffix("d")) for name, age in seen.items()}
    assert days["single"] - days["series"] == 10


@pytest.mark.parametrize("lines", [1, 7, 70_000])
async def test_the_last_lines_are_found_across_blocks_and_without_a_final_newline(lines: int, work: Path) -> None:
    written = [f"line {number}" for number in range(60_000)]
    log = work / "log"
    log.write_text("an earlier run\n")
    output = Output.begin(log)
    with log.open("a") as file:
        file.write("\n".join(written))
    output.finish()
    pieces = [piece async for piece in output.read(LogOptions(tail=lines))]
    assert b"".join(pieces).decode().split("\n") == written[-lines:]
