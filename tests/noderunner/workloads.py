"""Small workloads for the tests, and what the tests ask about them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from localcluster.client import NODES, PODS, Client, Json
from localcluster.network.uplinks import Uplink
from localcluster.process import LocalProcess

SLEEP = "import time; time.sleep(600)"


@dataclass(frozen=True)
class Nodes:
    """The node runner of a test process."""

    process: LocalProcess
    folder: Path
    names: list[str]
    uplink: Uplink

    def log(self, namespace: str, pod: str, container: str = "main") -> str:
        """What a container has printed so far."""
        path = self.folder / "logs" / f"{namespace}_{pod}_{container}.log"
        return path.read_text() if path.exists() else ""

    def volume(self, pod: Json, name: str) -> Path:
        return self.folder / "pods" / str(pod["metadata"]["uid"]) / "volumes" / name


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:8]}"


def container(script: str, name: str = "main", **fields: Any) -> Json:
    """A container that runs a Python script."""
    return {"name": name, "image": "python:3.12", "command": ["python", "-c", script], **fields}


def pod(name: str, *containers: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 2, **spec},
    }


def workload(kind: str, name: str, *containers: Json, **fields: Any) -> Json:
    """A Deployment, StatefulSet or DaemonSet; `fields` of its spec."""
    template = pod(name, *containers)
    labels = template["metadata"]["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            **fields,
        },
    }


async def forget_node(kubeconfig: Path, name: str) -> None:
    """Delete the node of a runner that has ended, and its pods, which would keep their namespaces for ever.

    A runner that was killed cannot take its node out of service: pods of other tests would be bound to it.
    """
    async with Client.from_kubeconfig(kubeconfig) as kube:
        await kube.delete(NODES, name)
        for entry in (await kube.list(PODS, fields=f"spec.nodeName={name}"))[0]:
            await kube.delete(PODS, entry["metadata"]["name"], entry["metadata"]["namespace"], grace_seconds=0)


async def pods_of(kube: Client, namespace: str, name: str) -> list[Json]:
    """The pods of a workload that are not being deleted."""
    pods, _ = await kube.list(PODS, namespace, labels=f"app={name}")
    return [entry for entry in pods if "deletionTimestamp" not in entry["metadata"]]


async def pod_with(kube: Client, namespace: str, name: str, until: Callable[[Json], bool]) -> Json:
    """The pod, once it exists and `until` holds."""
    found = await kube.wait_for(PODS, name, namespace, until=lambda obj: obj is not None and until(obj))
    assert found is not None
    return found


def has_phase(phase: str) -> Callable[[Json], bool]:
    return lambda obj: bool(obj.get("status", {}).get("phase") == phase)


def is_ready(obj: Json) -> bool:
    conditions = obj.get("status", {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def status_of(obj: Json, name: str = "main", key: str = "containerStatuses") -> Json:
    """The containerStatus of this name; empty while there is none."""
    statuses = obj.get("status", {}).get(key) or []
    return next((entry for entry in statuses if entry["name"] == name), {})


def pid_of(obj: Json, name: str = "main") -> int:
    return int(status_of(obj, name)["containerID"].removeprefix("local://"))


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Return when `condition()` holds; fail after 15 seconds."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        await asyncio.sleep(0.05)
