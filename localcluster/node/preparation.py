"""Makes the command of a container: program, environment, arguments and where its output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

import localcluster
from localcluster.client import Client, Json
from localcluster.events import EventRecorder
from localcluster.network.dns import ClusterDns
from localcluster.node.container import Launch, Timing
from localcluster.node.images import entrypoint, resolve_program
from localcluster.node.launcher import Command, Launcher
from localcluster.node.mounts import MountNamespaces
from localcluster.node.probes import ProbeTarget
from localcluster.node.rewrite import Rewriter, expand
from localcluster.node.sources import EnvironmentReader, PodFacts
from localcluster.node.volumes import PodVolumes

_REPOSITORY: Final = Path(localcluster.__file__).resolve().parent.parent
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Isolation:
    """What shows containers files of their own: names of Services, and volumes at their usual places."""

    namespaces: MountNamespaces
    dns: ClusterDns


@dataclass(frozen=True)
class Runtime:
    """What all pods of a node runner share."""

    client: Client
    launcher: Launcher
    session: aiohttp.ClientSession
    recorder: EventRecorder
    images: Mapping[str, Sequence[str]]
    timing: Timing
    data_dir: Path
    resolve: Callable[[str, str], str | None]
    """The address of a Service by its name and namespace; None where nothing stands for it."""
    isolation: Isolation | None
    """None: containers see the machine's files, and what they are told is all there is."""


class Preparation:
    """Prepares the containers of one pod; `folder` is the pod's own."""

    def __init__(self, runtime: Runtime, facts: PodFacts, volumes: PodVolumes, folder: Path) -> None:
        self._runtime = runtime
        self._facts = facts
        self._volumes = volumes
        self._folder = folder
        self._environment = EnvironmentReader(runtime.client, facts)

    async def prepare(self, pod: Json, spec: Json) -> Launch:
        """What to start for this container of the pod; raises UnknownImage or MissingSource."""
        program = entrypoint(spec.get("image", ""), self._runtime.images)  # refuses an unknown image in any case
        argv = list(spec.get("command") or program) + list(spec.get("args") or [])
        mounts = self._volumes.mounts(spec)
        rewrite = Rewriter(mounts, self._facts.pod_ip, self._runtime.resolve)
        home = self._folder / "containers" / spec["name"]
        home.mkdir(parents=True, exist_ok=True)
        env = self._base_environment(pod, home)
        for name, value in await self._environment.read(pod, spec):
            env[name] = rewrite(expand(value, env))
        metadata = pod["metadata"]
        enter = self._enter(pod, mounts)
        command = Command(
            name=f"{metadata['namespace']}/{metadata['name']}/{spec['name']}",
            argv=(*enter, *resolve_program([rewrite(expand(part, env)) for part in argv])),
            env=env,
            cwd=_working_directory(spec, rewrite, home),
            log=self._runtime.data_dir / "logs" / f"{metadata['namespace']}_{metadata['name']}_{spec['name']}.log",
            node=self._facts.node,
        )

        async def execute(argv: list[str], seconds: float) -> str | None:
            beside = Command(
                name=f"{command.name} (exec)",
                argv=(*enter, *resolve_program([rewrite(part) for part in argv])),
                env=env,
                cwd=command.cwd,
                log=home / ".exec.log",
                node=command.node,
            )
            return await self._runtime.launcher.run(beside, seconds)

        ports = {port["name"]: port["containerPort"] for port in spec.get("ports") or [] if "name" in port}
        return Launch(command, ProbeTarget(self._runtime.session, self._facts.pod_ip, ports, rewrite, execute))

    def _enter(self, pod: Json, mounts: Mapping[str, str]) -> tuple[str, ...]:
        """What stands before every command in a container with these mounts."""
        isolation, hosts = self._runtime.isolation, self._folder / "hosts"
        if isolation is None:
            return ()
        isolation.dns.serve(pod, self._facts.pod_ip, hosts)
        return isolation.namespaces.enter(hosts, mounts)

    def _base_environment(self, pod: Json, home: Path) -> dict[str, str]:
        connection = self._runtime.client.connection
        return {
            "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
            "HOME": str(home),
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "PYTHONPATH": str(_REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "KUBERNETES_SERVICE_HOST": connection.host,
            "KUBERNETES_SERVICE_PORT": str(connection.port),
        }


def _working_directory(spec: Json, rewrite: Rewriter, home: Path) -> Path:
    wanted = spec.get("workingDir")
    real = Path(rewrite(wanted)) if wanted else home
    return real if os.path.isdir(real) else home
