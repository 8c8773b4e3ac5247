"""The webhook beside a bare Starlette application that parses the same body: the ratio is the price of our work.

`make bench-webhook`. Both are real processes with TLS on loopback, measured in turn so that the machine's moods hit
both; `wrk` on keep-alive connections makes the load. Prints JSON lines (design, 12); docs/webhook-performance.md says
how to read them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgefarm import names
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority
from tests.bench import wrk

Json = dict[str, Any]

_PEER: Final = "bare Starlette"
#: Case and number of environment variables: 1.8 KB, 84 KB and 1 MB of pod.
_PODS: Final = {"1.8 KB": 8, "84 KB": 2000, "1 MB": 24_000}
_CONNECTIONS: Final = (1, 8, 64)
#: One worker, and as many as are deployed: a replica is one worker, and there are two.
_REPLICAS: Final = (1, 2)
#: State of a listening socket in /proc/net/tcp.
_LISTEN: Final = "0A"
_MEMORY_REQUESTS: Final = 200_000
#: metric, unit, attribute of a run
_METRICS: Final = (
    ("throughput", "1/s", "throughput"),
    ("p50", "ms", "p50"),
    ("p99", "ms", "p99"),
    ("server_cpu", "s", "server_cpu"),
    ("requests_per_cpu_second", "1/s", "requests_per_cpu_second"),
    ("rss", "KiB", "rss"),
)


@dataclass(frozen=True)
class Server:
    """What is under test: where it listens, and all processes that do its work."""

    port: int
    pids: list[int]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs per case and server; medians are printed")
    parser.add_argument("--pods", nargs="*", default=list(_PODS), choices=list(_PODS))
    parser.add_argument("--connections", nargs="*", type=int, default=list(_CONNECTIONS))
    parser.add_argument("--replicas", nargs="*", type=int, default=list(_REPLICAS), help="processes on one port")
    parser.add_argument("--memory", action="store_true", help=f"only: memory over {_MEMORY_REQUESTS:,} requests")
    options = parser.parse_args()
    wrk.check_installed()
    with tempfile.TemporaryDirectory(prefix="edgefarm-bench-") as name:
        bench = _Bench(Path(name), options.seconds, options.rounds)
        if not options.memory:
            for replicas in options.replicas:
                bench.compare(replicas, options.pods, options.connections)
        bench.memory()


class _Bench:
    def __init__(self, folder: Path, seconds: int, rounds: int) -> None:
        self._folder, self._seconds, self._rounds = folder, seconds, rounds
        self._authority = Authority.create(folder / "pki")
        self._certificate, self._key = self._authority.issue("server", ["127.0.0.1"])
        self._script = wrk.write_script(folder)
        self._bodies = {pod: folder / f"{count}.json" for pod, count in _PODS.items()}
        for pod, count in _PODS.items():
            self._bodies[pod].write_bytes(json.dumps(make_review(count), separators=(",", ":")).encode())

    def compare(self, replicas: int, pods: list[str], connections: list[int]) -> None:
        """Every case with so many processes each: ours and the bare application in turn."""
        workers = "1 worker" if replicas == 1 else f"{replicas} workers"
        with ExitStack() as running:
            ours = running.enter_context(self._webhook(replicas))
            bare = running.enter_context(self._bare(replicas))
            for pod in pods:
                for count in connections:
                    runs = [
                        self._pair(ours, bare, pod, count, swapped=number % 2 == 1) for number in range(self._rounds)
                    ]
                    self._report(f"{pod} pod, {count} connections, {workers}", runs)

    def memory(self) -> None:
        """Memory after a tenth, and after all of many requests."""
        pod, done, early = next(iter(_PODS)), 0, 0
        with self._webhook(1) as server:
            while done < _MEMORY_REQUESTS:
                done += self._run(server, pod, 8).requests
                if not early and done >= _MEMORY_REQUESTS // 10:
                    early = wrk.memory(server.pids, "Anonymous")
            late = wrk.memory(server.pids, "Anonymous")
        case = f"{pod} pod, {done} requests"
        for metric, value in (("memory_after_a_tenth", early), ("memory_at_the_end", late), ("growth", late - early)):
            _print(case, metric, "KiB", value)

    def _run(self, server: Server, pod: str, connections: int) -> wrk.Load:
        return wrk.run(
            self._script,
            self._bodies[pod],
            server.port,
            server.pids,
            connections=connections,
            seconds=self._seconds,
        )

    def _pair(
        self, ours: Server, bare: Server, pod: str, connections: int, *, swapped: bool
    ) -> tuple[wrk.Load, wrk.Load]:
        """Both, one right after the other; who is first takes turns."""
        runs = [self._run(server, pod, connections) for server in ((bare, ours) if swapped else (ours, bare))]
        return (runs[1], runs[0]) if swapped else (runs[0], runs[1])

    def _report(self, case: str, runs: list[tuple[wrk.Load, wrk.Load]]) -> None:
        for metric, unit, attribute in _METRICS:
            pairs = [(getattr(ours, attribute), getattr(bare, attribute)) for ours, bare in runs]
            value, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
            # Of pairs that ran side by side, not of medians: the machine may have changed in between.
            ratio = statistics.median(ours / bare for ours, bare in pairs)
            _print(case, metric, unit, value, (peer, ratio))
        _print(case, "generator_busy", "cores", statistics.median(ours.generator_busy for ours, _ in runs))

    @contextmanager
    def _webhook(self, replicas: int) -> Iterator[Server]:
        folder = self._folder / "certificates"
        folder.mkdir(exist_ok=True)
        (folder / "tls.crt").write_bytes(self._certificate.read_bytes())
        (folder / "tls.key").write_bytes(self._key.read_bytes())
        port = free_port()
        environment = {
            "EDGEFARM_SIDECAR_IMAGE": "registry.example/edgefarm/network:1",
            "EDGEFARM_VAULT_ADDR": "https://vault.example:8200",
            "EDGEFARM_NATS_URL": "tls://nats.example:4222",
            "EDGEFARM_CA_FILE": str(self._authority.certificate),
            "EDGEFARM_WEBHOOK_HOST": "127.0.0.1",
            "EDGEFARM_WEBHOOK_PORT": str(port),
            "EDGEFARM_WEBHOOK_CERT_DIR": str(folder),
            "EDGEFARM_WEBHOOK_DRAIN": "0s",
        }
        with ExitStack() as running:
            pids = []
            for number in range(replicas):
                health = free_port()
                process = self._start(
                    f"webhook-{number}",
                    [sys.executable, "-m", "webhook"],
                    environment | {"EDGEFARM_WEBHOOK_HEALTH_PORT": str(health)},
                )
                running.callback(process.stop)
                process.wait_until(lambda health=health: _is_ready(health), "ready")  # type: ignore[misc]
                pids.append(process.pid)
            yield Server(port, pids)

    @contextmanager
    def _bare(self, replicas: int) -> Iterator[Server]:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.bare", str(port), str(self._certificate), str(self._key)]
        with ExitStack() as running:
            pids = []
            for number in range(replicas):
                process = self._start(f"bare-{number}", command, {})
                running.callback(process.stop)
                process.wait_until(lambda pid=process.pid: _listens(pid), "listening")  # type: ignore[misc]
                pids.append(process.pid)
            yield Server(port, pids)

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> LocalProcess:
        environment = {"PATH": os.environ["PATH"]} | environment
        return LocalProcess.start(name, command, log=self._folder / f"{name}.log", env=environment)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _listens(pid: int) -> bool:
    """Whether this process of several on one port has a listening socket."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == _LISTEN and f"socket:[{row[9]}]" in sockets for row in rows)


def make_review(variables: int) -> Json:
    """The review of a pod as an API server sends it, with so many environment variables."""
    token_volume = "kube-api-access-x2x9k"
    container = {
        "name": "app",
        "image": "registry.example/team-a/publisher:2.4.1",
        "env": [{"name": f"VARIABLE_{number:05}", "value": f"value-{number:05}"} for number in range(variables)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [
            {"name": token_volume, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    token_sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "publisher-6f7d8c9b5-",
            "namespace": "team-a",
            "creationTimestamp": None,
            "labels": {"app": "publisher", "pod-template-hash": "6f7d8c9b5", names.LABEL_NETWORK: "foo"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "publisher-6f7d8c9b5",
                    "uid": "0b4b8b2c-6393-11e8-b7cc-42010a800002",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "volumes": [{"name": token_volume, "projected": {"sources": token_sources, "defaultMode": 420}}],
            "containers": [container],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "publisher",
            "serviceAccount": "publisher",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    }
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "team-a",
        "object": pod,
        "oldObject": None,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def _print(case: str, metric: str, unit: str, value: float, peer: tuple[float, float] | None = None) -> None:
    """One line; `peer` is the peer's value and the ratio."""
    line: Json = {"bench": "webhook", "case": case, "metric": metric, "unit": unit, "value": round(value, 3)}
    if peer is not None:
        line |= {"peer": _PEER, "peer_value": round(peer[0], 3), "ratio": round(peer[1], 3)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
