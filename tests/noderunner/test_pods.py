"""Single pods: environment, volumes, order, restarts and end."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest

from localcluster.client import CONFIG_MAPS, EVENTS, PODS, SECRETS, Client, Json, is_gone
from localcluster.node.sources import PodFacts
from localcluster.node.volumes import PodVolumes, VolumePlaces
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
)

TERM_WRITES = """
import os, signal, sys, time
path, name = sys.argv[1:]
def say(word):
    with open(path, "a") as file: file.write(f"{name} {word}\\n")
def end(*_):
    say("ends"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
say("starts")
time.sleep(600)
"""


async def test_a_container_sees_what_its_pod_spec_says_and_nothing_of_the_runner(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    await kube.create(CONFIG_MAPS, _config_map("settings", {"COLOUR": "blue"}), namespace)
    await kube.create(SECRETS, _secret("login", {"password": b"pa$$word"}), namespace)
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}}},
        {"name": "URL", "value": "http://localhost:80/$(COLOUR)/$$(COLOUR)/$(UNKNOWN)"},
    ]
    script = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    main = container(script, env=env, envFrom=[{"configMapRef": {"name": "settings"}}], args=["$(COLOUR)"])
    await kube.create(PODS, pod("env", main, restartPolicy="Never"), namespace)
    done = await pod_with(kube, namespace, "env", has_phase("Succeeded"))
    seen, arguments = json.loads(nodes.log(namespace, "env"))
    ip = done["status"]["podIP"]
    assert arguments == ["blue"]
    assert seen["IP"] == ip
    assert seen["NODE"] == done["spec"]["nodeName"]
    assert seen["APP"] == "env"
    assert seen["PASSWORD"] == "pa$$word"
    assert seen["URL"] == f"http://{ip}:80/blue/$(COLOUR)/$(UNKNOWN)"
    assert seen["KUBERNETES_SERVICE_PORT"] == str(kube.connection.port)
    assert not {"ABSENT", "NOT_FOR_CONTAINERS", "VIRTUAL_ENV"} & seen.keys()


async def test_containers_start_and_stop_in_the_order_of_native_sidecars(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    mounts = [{"name": "disk", "mountPath": "/shared"}]
    path = f"/shared/{namespace}"

    def part(name: str, **fields: object) -> Json:
        return container(TERM_WRITES, name, args=[path, name], volumeMounts=mounts, **fields)

    probe = {
        "exec": {"command": ["python", "-c", f"import sys; sys.exit('first starts' not in open('{path}').read())"]}
    }
    first = part("first", restartPolicy="Always", startupProbe=probe)
    second = part("second", restartPolicy="Always")
    before = container(f"open('{path}', 'a').write('init runs\\n')", "init", volumeMounts=mounts)
    await kube.create(
        PODS,
        pod(
            "order",
            part("main"),
            initContainers=[first, before, second],
            volumes=[{"name": "disk", "hostPath": {"path": "/order"}}],
        ),
        namespace,
    )
    running = await pod_with(kube, namespace, "order", is_ready)
    # hostPath is below the node's own root, so the file outlives the pod.
    file = nodes.folder / "nodes" / running["spec"]["nodeName"] / "order" / namespace
    await eventually(lambda: "main starts" in file.read_text(), "main has started")
    assert status_of(running, "init", "initContainerStatuses")["state"]["terminated"]["exitCode"] == 0
    assert status_of(running, "first", "initContainerStatuses")["started"]
    await kube.delete(PODS, "order", namespace)
    await kube.wait_for(PODS, "order", namespace, until=is_gone)
    words = file.read_text().splitlines()
    assert words[:2] == ["first starts", "init runs"]
    assert sorted(words[2:4]) == ["main starts", "second starts"]  # a running sidecar without probe lets main start
    assert words[4:] == ["main ends", "second ends", "first ends"]


async def test_a_pod_whose_init_container_fails_is_failed_when_it_must_not_restart(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    spec = pod(
        "broken", container(SLEEP), restartPolicy="Never", initContainers=[container("raise SystemExit(7)", "i")]
    )
    await kube.create(PODS, spec, namespace)
    failed = await pod_with(kube, namespace, "broken", has_phase("Failed"))
    assert status_of(failed, "i", "initContainerStatuses")["state"]["terminated"]["exitCode"] == 7
    assert nodes.log(namespace, "broken") == ""


async def test_a_projected_token_has_its_audience_and_is_bound_to_the_pod(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    token = {"serviceAccountToken": {"path": "token", "audience": "edgefarm-network", "expirationSeconds": 600}}
    volume = {"name": "token", "projected": {"sources": [token], "defaultMode": 0o400}}
    script = "import os; print(open('/var/run/secrets/vault/token').read()); " + SLEEP
    mounts = [{"name": "token", "mountPath": "/var/run/secrets/vault"}]
    await kube.create(PODS, pod("token", container(script, volumeMounts=mounts), volumes=[volume]), namespace)
    running = await pod_with(kube, namespace, "token", is_ready)
    await eventually(lambda: nodes.log(namespace, "token"), "the token is printed")
    text = nodes.log(namespace, "token").split()[0]
    payload = text.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["aud"] == ["edgefarm-network"]
    assert claims["kubernetes.io"]["pod"]["uid"] == running["metadata"]["uid"]
    assert (nodes.volume(running, "token") / "token").stat().st_mode & 0o777 == 0o400


async def test_a_token_is_replaced_after_four_fifths_of_its_lifetime(
    kube: Client, namespace: str, nodes: Nodes, work: Path
) -> None:
    source = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 1000}}
    volume = {"name": "token", "projected": {"sources": [source]}}
    made = await kube.create(PODS, pod("renewal", container(SLEEP), volumes=[volume]), namespace)
    now = 0.0
    places = VolumePlaces(work / "pod", work / "root", work / "claims")
    volumes = PodVolumes(kube, made, PodFacts("node", "127.0.0.9", "127.0.0.8"), places, clock=lambda: now)
    file = work / "pod" / "volumes" / "token" / "token"
    seen = []
    for moment in (0.0, 799.0, 801.0):
        now = moment
        await volumes.refresh(made)
        seen.append(file.read_text())
    assert volumes.refresh_at == 801.0 + 800.0
    assert seen[0] == seen[1] != seen[2]


async def test_a_changed_secret_appears_in_the_volume_while_the_container_runs(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    await kube.create(SECRETS, _secret("certificate", {"tls.crt": b"one", "other": b"x"}), namespace)
    volume = {"name": "tls", "secret": {"secretName": "certificate", "items": [{"key": "tls.crt", "path": "a/b.crt"}]}}
    mounts = [{"name": "tls", "mountPath": "/etc/tls"}]
    script = (
        "import time\nseen = None\nwhile True:\n"
        "    text = open('/etc/tls/a/b.crt').read()\n"
        "    if text != seen: print(text)\n"
        "    seen = text; time.sleep(0.05)"
    )
    await kube.create(PODS, pod("fresh", container(script, volumeMounts=mounts), volumes=[volume]), namespace)
    await eventually(lambda: nodes.log(namespace, "fresh").split() == ["one"], "the first version is seen")
    two = base64.b64encode(b"two").decode()
    await kube.patch(SECRETS, "certificate", {"data": {"tls.crt": two}}, namespace)
    await eventually(lambda: nodes.log(namespace, "fresh").split() == ["one", "two"], "the second version is seen")


async def test_a_pod_waits_for_a_missing_secret_and_says_so(kube: Client, namespace: str, nodes: Nodes) -> None:
    volume = {"name": "tls", "secret": {"secretName": "late"}}
    main = container(SLEEP, volumeMounts=[{"name": "tls", "mountPath": "/tls"}])
    await kube.create(PODS, pod("waiting", main, volumes=[volume]), namespace)
    await _event(kube, namespace, "waiting", "secrets 'late' not found")
    await kube.create(SECRETS, _secret("late", {"key": b"x"}), namespace)
    await pod_with(kube, namespace, "waiting", is_ready)


async def test_an_unknown_image_is_refused_with_the_names_of_the_known_ones(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    await kube.create(PODS, pod("strange", {"name": "main", "image": "docker.io/library/redis:7"}), namespace)
    waiting = await pod_with(
        kube, namespace, "strange", lambda obj: "ImagePull" in json.dumps(status_of(obj).get("state"))
    )
    message = status_of(waiting)["state"]["waiting"]["message"]
    assert "docker.io/library/redis:7" in message
    assert "edgefarm/network-sidecar" in message
    assert waiting["status"]["phase"] == "Pending"


async def test_a_killed_container_restarts_and_is_counted(kube: Client, namespace: str, nodes: Nodes) -> None:
    await kube.create(PODS, pod("phoenix", container(SLEEP)), namespace)
    first = await pod_with(kube, namespace, "phoenix", is_ready)
    os.kill(pid_of(first), signal.SIGKILL)
    second = await pod_with(
        kube, namespace, "phoenix", lambda obj: is_ready(obj) and status_of(obj)["restartCount"] == 1
    )
    assert pid_of(second) != pid_of(first)
    assert status_of(second)["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    assert second["status"]["podIP"] == first["status"]["podIP"]


async def test_a_container_that_fails_its_liveness_probe_is_restarted(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create(PODS, pod("ill", container(SLEEP, livenessProbe=probe)), namespace)
    await pod_with(kube, namespace, "ill", lambda obj: status_of(obj).get("restartCount", 0) >= 1)
    await _event(kube, namespace, "ill", "Liveness probe failed")


async def test_a_failing_container_backs_off_as_crash_loop(kube: Client, namespace: str, nodes: Nodes) -> None:
    await kube.create(PODS, pod("crash", container("raise SystemExit(3)")), namespace)
    crashed = await pod_with(
        kube, namespace, "crash", lambda obj: "CrashLoopBackOff" in json.dumps(status_of(obj).get("state"))
    )
    assert status_of(crashed)["lastState"]["terminated"]["exitCode"] == 3
    assert not is_ready(crashed)


@pytest.mark.parametrize("ignore_term", [False, True])
async def test_a_deleted_pod_leaves_no_process_and_no_folder(
    kube: Client, namespace: str, nodes: Nodes, ignore_term: bool
) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if ignore_term else ""
    child = f"{stubborn}import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEP}']).pid); {SLEEP}"
    await kube.create(PODS, pod("gone", container(child), terminationGracePeriodSeconds=1), namespace)
    running = await pod_with(kube, namespace, "gone", is_ready)
    await eventually(lambda: nodes.log(namespace, "gone").split(), "the child is started")
    pids = [pid_of(running), int(nodes.log(namespace, "gone").split()[-1])]
    assert all(map(is_alive, pids))
    await kube.delete(PODS, "gone", namespace)
    await kube.wait_for(PODS, "gone", namespace, until=is_gone)
    await eventually(lambda: not any(map(is_alive, pids)), "the processes are gone")
    await eventually(lambda: not nodes.volume(running, "x").parents[1].exists(), "the folder is gone")


async def _event(kube: Client, namespace: str, name: str, text: str) -> None:
    """Wait for an Event about this object whose message contains `text`."""
    messages: list[str] = []

    async def look() -> bool:
        events, _ = await kube.list(EVENTS, namespace)
        messages[:] = [entry["message"] for entry in events if entry["involvedObject"]["name"] == name]
        return any(text in message for message in messages)

    for _ in range(200):
        if await look():
            return
        await kube.find(PODS, name, namespace)
    raise AssertionError(f"no Event with {text!r}, but {messages}")


def _config_map(name: str, data: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _secret(name: str, data: dict[str, bytes]) -> Json:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
