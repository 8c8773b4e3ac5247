"""Runs the pods of OpenBao's StatefulSet as processes: a kubelet and a controller of StatefulSets for one server.

Each pod has an address of its own, its volumes in a folder, and a mount namespace where the names of replicas resolve
and the service account's files are where programs look for them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from localcluster.node.images import resolve_program
from localcluster.node.mounts import MountNamespaces
from localcluster.node.rewrite import Rewriter, expand
from localcluster.process import LocalProcess
from reconciler.adapters.kube import KubeClient
from reconciler.ports import CONFIGMAP, POD, SECRET, STATEFUL_SET, Object

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass
class Replica:
    """One pod and its processes."""

    uid: str
    address: str
    volumes: dict[str, Path]
    processes: list[LocalProcess] = field(default_factory=list)

    def stop(self, grace: float = 5.0) -> None:
        for process in self.processes:
            process.stop(grace)


class Node:
    """Keeps as many pods as the StatefulSet wants until it is stopped. `service_account` holds `token` and `ca.crt`."""

    def __init__(self, folder: Path, kube: KubeClient, namespace: str, server: str, service_account: Path) -> None:
        self.folder = folder
        self.replicas: dict[str, Replica] = {}
        self.starts: list[str] = []
        """Names of the pods in the order in which they were started."""
        self._kube = kube
        self._namespace = namespace
        self._server = server
        self._service_account = service_account
        self._block = f"127.{random.randint(100, 199)}.{random.randint(0, 255)}"
        self._namespaces: MountNamespaces | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all replicas that there may be."""
        return tuple(f"{self._block}.{ordinal + 10}" for ordinal in range(3))

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for replica in self.replicas.values():
            await asyncio.to_thread(replica.stop, 0)  # nobody needs its data any more

    def check(self) -> None:
        """Raise what has ended the node early."""
        assert self._task is not None
        if self._task.done():
            self._task.result()

    def log(self) -> str:
        """What all containers have said so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*/*.log")))

    def serving(self) -> str:
        """The address behind which a client finds OpenBao, as the Service would choose: of a pod that is ready."""
        ready = [each.address for each in self.replicas.values() if _healthy(each.address)]
        return ready[0] if ready else self.addresses[0]

    async def _run(self) -> None:
        self._namespaces = await MountNamespaces.find()
        while True:
            with contextlib.suppress(KubernetesUnavailable):  # as for a kubelet, no reason to stop
                await self._tick()
            await asyncio.sleep(0.1)

    async def _tick(self) -> None:
        stateful_set = await self._kube.get(STATEFUL_SET, self._namespace, self._server)
        wanted = int(stateful_set["spec"]["replicas"]) if stateful_set else 0
        for ordinal in range(3):
            name = names.server_replica(self._server, ordinal)
            pod = await self._kube.get(POD, self._namespace, name)
            running = self.replicas.get(name)
            if running and (pod is None or pod["metadata"]["uid"] != running.uid or ordinal >= wanted):
                await asyncio.to_thread(self.replicas.pop(name).stop)
                if pod is not None and ordinal >= wanted:
                    await self._kube.delete(POD, self._namespace, name)
            elif running and pod is not None:
                await self._look_after(pod, running)
            elif stateful_set is not None and ordinal < wanted:
                await self._start(stateful_set, pod, ordinal)

    async def _start(self, stateful_set: Object, pod: Object | None, ordinal: int) -> None:
        template, name = stateful_set["spec"]["template"], names.server_replica(self._server, ordinal)
        if pod is None:
            metadata = {**template["metadata"], "name": name, "namespace": self._namespace}
            claims = [{"name": "data", "persistentVolumeClaim": {"claimName": f"data-{name}"}}]
            spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *claims]}
            pod = await self._kube.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        replica = Replica(pod["metadata"]["uid"], self.addresses[ordinal], await self._volumes(pod))
        self.replicas[name] = replica
        self.starts.append(name)
        for container in pod["spec"]["initContainers"]:
            process = await asyncio.to_thread(self._launch, name, container, replica)
            assert await asyncio.to_thread(process.wait, 20) == 0, process.tail()
        for container in pod["spec"]["containers"]:
            replica.processes.append(await asyncio.to_thread(self._launch, name, container, replica))

    async def _volumes(self, pod: Object) -> dict[str, Path]:
        name, folders = pod["metadata"]["name"], {}
        for volume in pod["spec"]["volumes"]:
            kept = volume["name"] == "data"
            folder = self.folder / name / ("data" if kept else f"{pod['metadata']['uid']}-{volume['name']}")
            folder.mkdir(parents=True, exist_ok=True)
            folders[volume["name"]] = folder
            await self._fill(volume, folder)
        return folders

    async def _fill(self, volume: Object, folder: Path) -> None:
        if "configMap" in volume:
            source = await self._kube.get(CONFIGMAP, self._namespace, volume["configMap"]["name"])
            contents = {key: text.encode() for key, text in (source or {}).get("data", {}).items()}
        elif "secret" in volume:
            source = await self._kube.get(SECRET, self._namespace, volume["secret"]["secretName"])
            contents = {key: base64.b64decode(text) for key, text in (source or {}).get("data", {}).items()}
        else:
            return
        for key, content in contents.items():
            path = folder / key
            if not path.exists() or path.read_bytes() != content:
                (folder / f"{key}.new").write_bytes(content)
                (folder / f"{key}.new").replace(path)

    def _launch(self, name: str, container: Object, replica: Replica) -> LocalProcess:
        mounts = {each["mountPath"]: str(replica.volumes[each["name"]]) for each in container["volumeMounts"]}
        rewrite = Rewriter(mounts, replica.address, lambda _service, _namespace: None)
        fields = {"metadata.name": name, "status.podIP": replica.address}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        for variable in container["env"]:
            value = variable.get("value")
            source = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]] if value is None else value
            environment[variable["name"]] = rewrite(expand(source, environment))
        command = [rewrite(expand(part, environment)) for part in container["command"]]
        assert self._namespaces is not None
        enter = self._namespaces.enter(self._hosts(), {_SERVICE_ACCOUNT: str(self._service_account)})
        log, folder = self.folder / name / f"{container['name']}.log", container.get("workingDir")
        return LocalProcess.start(
            name,
            [*enter, *resolve_program(command)],
            log=log,
            env=environment,
            cwd=Path(rewrite(folder)) if folder else None,
        )

    def _hosts(self) -> Path:
        path = self.folder / "hosts"
        lines = [
            f"{address} {names.server_replica_host(self._server, f'{self._server}-{n}', self._namespace)}"
            for n, address in enumerate(self.addresses)
        ]
        path.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        return path

    async def _look_after(self, pod: Object, replica: Replica) -> None:
        for volume in pod["spec"]["volumes"]:
            await self._fill(volume, replica.volumes[volume["name"]])
        ready = str(await asyncio.to_thread(_healthy, replica.address))
        conditions = (pod.get("status") or {}).get("conditions") or [{}]
        if conditions[0].get("status") != ready:
            status = {"podIP": replica.address, "conditions": [{"type": "Ready", "status": ready}]}
            with contextlib.suppress(KubernetesRefused):  # deleted meanwhile
                await self._kube.patch(
                    POD, self._namespace, pod["metadata"]["name"], {"status": status}, subresource="status"
                )


def health(address: str) -> int:
    """Status of OpenBao's health page, as the readiness probe asks for it; 0 while nothing answers."""
    context: Any = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(
            f"https://{address}:8200/v1/sys/health?standbyok=true", timeout=2, context=context
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def _healthy(address: str) -> bool:
    return health(address) == 200
