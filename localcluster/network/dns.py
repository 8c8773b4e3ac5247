"""The cluster's DNS for containers: a hosts file for each pod, which its containers see in place of the machine's."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from localcluster.client import Json
from localcluster.informer import Informer
from localcluster.network.services import is_served
from localcluster.workloads.endpoints import slice_of

#: (namespace, name before it) -> addresses.
Records = Mapping[tuple[str, str], Sequence[str]]


@dataclass(frozen=True)
class HostsFile:
    """The hosts file of one pod."""

    path: Path
    namespace: str
    hostname: str
    address: str


class ClusterDns:
    """Knows Services and the pods behind headless ones by the names that Kubernetes gives them."""

    def __init__(self, services: Informer, pods: Informer, api_host: str) -> None:
        self._services = services
        self._pods = pods
        self._api_host = api_host
        self._files: dict[str, HostsFile] = {}
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Follow the informers until cancelled."""
        for informer in (self._services, self._pods):
            informer.listen(lambda _: self._moved.set())
        while True:
            await self._moved.wait()
            self._moved.clear()
            self._refresh()

    def serve(self, pod: Json, address: str, path: Path) -> None:
        """Write the pod's hosts file, and keep it up to date as long as it is there."""
        metadata = pod["metadata"]
        hostname = pod["spec"].get("hostname") or metadata["name"]
        file = self._files[metadata["uid"]] = HostsFile(path, metadata["namespace"], hostname, address)
        self._write(file, self._records())

    def _refresh(self) -> None:
        # The file goes with its pod.
        self._files = {uid: file for uid, file in self._files.items() if file.path.exists()}
        records = self._records()
        for file in self._files.values():
            self._write(file, records)

    def _records(self) -> Records:
        return records_of(self._services.items.values(), self._pods.items.values())

    def _write(self, file: HostsFile, records: Records) -> None:
        """In place: a mounted file cannot be replaced. In one piece, because somebody may read it meanwhile."""
        content = hosts_text(file, records, self._api_host).encode()
        with os.fdopen(os.open(file.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as opened:
            if opened.read() != content:
                os.pwrite(opened.fileno(), content, 0)
                opened.truncate(len(content))


def records_of(services: Iterable[Json], pods: Iterable[Json]) -> Records:
    """Names and addresses: of Services that are served here, of headless ones with their ready pods, and of these."""
    by_namespace: defaultdict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        by_namespace[pod["metadata"]["namespace"]].append(pod)
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for service in services:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        if is_served(service):
            found[namespace, name].append(service["spec"]["clusterIP"])
        elif service["spec"].get("clusterIP") == "None" and service["spec"].get("selector"):
            for endpoint in slice_of(service, by_namespace[namespace])["endpoints"]:
                if endpoint["conditions"]["ready"]:
                    found[namespace, name] += endpoint["addresses"]
                    if "hostname" in endpoint:
                        found[namespace, f"{endpoint['hostname']}.{name}"] += endpoint["addresses"]
    return found


def hosts_text(file: HostsFile, records: Records, api_host: str) -> str:
    """A pod's hosts file; `localhost` is the pod's own address, because pods share the loopback device."""
    lines = [f"{file.address} localhost {file.hostname}"]
    if _is_address(api_host):
        lines.append(_line(api_host, "default", "kubernetes", file.namespace))
    for (namespace, name), addresses in sorted(records.items()):
        lines += [_line(address, namespace, name, file.namespace) for address in addresses]
    return "\n".join(lines) + "\n"


def _line(address: str, namespace: str, name: str, from_namespace: str) -> str:
    """One address with the full name, and what the search path of a pod in `from_namespace` makes of shorter ones."""
    names = [f"{name}.{namespace}{end}" for end in (".svc.cluster.local", ".svc", "")]
    return " ".join([address, *names, *([name] if namespace == from_namespace else [])])


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
