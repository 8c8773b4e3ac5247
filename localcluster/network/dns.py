"""The cluster's DNS for containers: a hosts file for each pod, kept up to date in place.

A container sees its pod's file as `/etc/hosts`, in a mount namespace of its own; nothing on the machine changes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from localcluster.client import Json
from localcluster.informer import Informer
from localcluster.network.services import is_served
from localcluster.process import StartError
from localcluster.workloads.endpoints import slice_of

_HOSTS: Final = "/etc/hosts"
#: Runs `"$@"` in its own process after it has put the file `$0` in the place of the machine's.
_SCRIPT: Final = f'mount --bind "$0" {_HOSTS} && exec "$@"'
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

    def __init__(self, services: Informer, pods: Informer, api_host: str, namespace_command: Sequence[str]) -> None:
        self._services = services
        self._pods = pods
        self._api_host = api_host
        self._namespace_command = namespace_command
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

    def enter(self, pod: Json, address: str, path: Path) -> tuple[str, ...]:
        """What to put before a command so that it runs with the pod's hosts file, which is kept at `path`."""
        metadata = pod["metadata"]
        hostname = pod["spec"].get("hostname") or metadata["name"]
        file = self._files[metadata["uid"]] = HostsFile(path, metadata["namespace"], hostname, address)
        self._write(file, self._records())
        return (*self._namespace_command, str(path))

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


async def mount_namespace_command() -> list[str]:
    """The beginning of a command that sees a file, named next, as `/etc/hosts`; StartError where that cannot be had."""
    unshare, shell = (shutil.which(name) for name in ("unshare", "sh"))
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        if unshare and shell:
            command = [unshare, *options, "--", shell, "-c", _SCRIPT]
            if await _succeeds([*command, _HOSTS, "true"]):
                return command
    raise StartError("names of Services need root or unprivileged user namespaces, and the programs unshare and mount")


async def _succeeds(command: Sequence[str]) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    return await process.wait() == 0
