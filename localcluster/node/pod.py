"""One pod on its node: volumes, the order of its containers, its status, and its end."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from edgefarm.errors import Conflict, EdgefarmError, Refused
from localcluster.client import PODS, Json, Resource
from localcluster.events import timestamp
from localcluster.node.container import Container, ContainerHost, Launch, Restart
from localcluster.node.preparation import Preparation, Runtime
from localcluster.node.sources import MissingSource, PodFacts
from localcluster.node.status import PodView, pod_status
from localcluster.node.volumes import PodVolumes, VolumePlaces
from localcluster.node.waiting import set_within

_RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger()


class PodWorker:
    """Runs one pod that is bound to one of our nodes, from its appearance to its disappearance."""

    def __init__(self, pod: Json, facts: PodFacts, runtime: Runtime) -> None:
        self.pod = pod
        self.facts = facts
        self._runtime = runtime
        self._name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        folder = runtime.data_dir / "pods" / pod["metadata"]["uid"]
        places = VolumePlaces(
            pod=folder,
            node_root=runtime.data_dir / "nodes" / facts.node,
            claims=runtime.data_dir / "claims",
        )
        self._volumes = PodVolumes(runtime.client, pod, facts, places)
        self._preparation = Preparation(runtime, facts, self._volumes, folder)
        host = ContainerHost(runtime.launcher, runtime.timing, self._prepare, self._changed, self._warn)
        self._init = self._containers("initContainers", "initContainerStatuses", host)
        self._main = self._containers("containers", "containerStatuses", host)
        self._initialized = False
        self._outcome = ""
        self._start_time = timestamp()
        self._dirty = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._deleted = self._gone = self._crashed = False
        self._volumes_made = asyncio.Event()
        self._volumes_stale = asyncio.Event()

    def update(self, pod: Json) -> None:
        """Take note of the object's present state."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._delete()

    def vanish(self) -> None:
        """Take note that the object is gone."""
        self._gone = True
        self._delete()

    def reboot(self) -> None:
        """The node lost its power and has it again: everything dies at once, and what may restart begins anew."""
        if self._outcome:
            return
        for container in self._all:
            container.crash()
        self._crashed = True
        self._interrupted.set()

    def container(self, name: str) -> Container | None:
        """The container or init container of this name."""
        return next((entry for entry in self._all if entry.view.name == name), None)

    def source_changed(self, resource: Resource, name: str) -> None:
        """A ConfigMap or Secret of the pod's namespace changed."""
        if self._volumes.uses(resource, name):
            self._volumes_stale.set()

    async def run(self) -> None:
        """Run the pod until its object is deleted, and finish the deletion."""
        helpers = [asyncio.create_task(self._write_status()), asyncio.create_task(self._keep_volumes())]
        lifecycle = asyncio.create_task(self._live())
        try:
            while not self._deleted:
                await self._interrupted.wait()
                self._interrupted.clear()
                await _cancel(lifecycle)
                if self._crashed and not self._deleted:
                    self._crashed = False
                    lifecycle = asyncio.create_task(self._recover())
            await self._stop_containers(self._grace())
        finally:
            await _cancel(lifecycle, *helpers)
        await self._confirm_deletion()
        self._volumes.remove()

    async def halt(self, grace: float) -> None:
        """Stop all containers because the node stops; the object stays."""
        await self._stop_containers(grace)

    def _delete(self) -> None:
        self._deleted = True
        self._interrupted.set()

    @property
    def _all(self) -> list[Container]:
        return [*self._init, *self._main]

    def _containers(self, key: str, status_key: str, host: ContainerHost) -> list[Container]:
        # A pod that ran here before (a restarted runner) goes on counting, as after the reboot of a node.
        before = {
            entry["name"]: entry["restartCount"] + ("waiting" not in entry["state"])
            for entry in self.pod.get("status", {}).get(status_key) or []
        }
        specs = self.pod["spec"].get(key) or []
        return [Container(spec, host, restarts=before.get(spec["name"], 0)) for spec in specs]

    # -- life --------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._changed()
        await self._volumes_made.wait()
        restart = Restart(self.pod["spec"].get("restartPolicy") or "Always")
        for container in self._init:
            if container.is_sidecar:
                container.launch(Restart.ALWAYS)
                await container.started.wait()
                continue
            container.launch(Restart.NEVER if restart is Restart.NEVER else Restart.ON_FAILURE)
            if await container.finished() != 0:
                await self._finish("Failed")
                return
        self._initialized = True
        for container in self._main:
            container.launch(restart)
            # As the kubelet: the next container is not started before this one's hook has ended.
            await container.post_started.wait()
        codes = [await container.finished() for container in self._main]
        await self._finish("Failed" if any(codes) else "Succeeded")

    async def _recover(self) -> None:
        """As a kubelet after a power cut; it needs no API server, unless the pod had not got what it needs before."""
        await asyncio.gather(*(container.ended() for container in self._all))
        if self.pod["spec"].get("restartPolicy") == "Never":
            await self._finish("Failed")
            return
        self._volumes.lose_memory()
        for container in self._all:
            container.renew()
        self._initialized = False
        await self._live()

    async def _finish(self, outcome: str) -> None:
        await self._stop_sidecars(self._grace())
        self._outcome = outcome
        self._changed()

    async def _keep_volumes(self) -> None:
        """Make the volumes; then bring them up to date when a source changed or a token must be renewed."""
        pause: float | None
        while True:
            try:
                await self._volumes.refresh(self.pod)
            except (MissingSource, EdgefarmError) as error:
                await self._warn("FailedMount", str(error))
                pause = _RETRY_SECONDS
            else:
                self._volumes_made.set()
                due = self._volumes.refresh_at
                pause = None if due is None else max(0.0, due - time.time())
            await set_within(self._volumes_stale, pause)
            self._volumes_stale.clear()

    def _grace(self) -> float:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        seconds = metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30))
        return 0.1 if self._gone else float(min(seconds, self._runtime.timing.grace_max))

    async def _stop_containers(self, grace: float) -> None:
        plain = [container for container in self._init if not container.is_sidecar]
        await asyncio.gather(*(container.stop(grace) for container in [*plain, *self._main]))
        await self._stop_sidecars(grace)

    async def _stop_sidecars(self, grace: float) -> None:
        for container in reversed(self._init):
            if container.is_sidecar:
                await container.stop(grace)

    async def _confirm_deletion(self) -> None:
        metadata = self.pod["metadata"]
        while not self._gone:
            try:
                await self._runtime.client.delete(
                    PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_seconds=0
                )
            except EdgefarmError as error:
                _log.warning("pod not deleted", pod=self._name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _prepare(self, spec: Json) -> Launch:
        return await self._preparation.prepare(self.pod, spec)

    # -- status ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._dirty.set()

    async def _warn(self, reason: str, message: str) -> None:
        await self._runtime.recorder.record(self.pod, reason, message, warning=True)

    async def _write_status(self) -> None:
        written: Json = {}
        metadata = self.pod["metadata"]
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            view = PodView(
                facts=self.facts,
                start_time=self._start_time,
                init=[container.view for container in self._init],
                main=[container.view for container in self._main],
                initialized=self._initialized,
                outcome=self._outcome,
            )
            present = {**self.pod, "status": written or self.pod.get("status", {})}
            status = pod_status(present, view, timestamp())
            if status == written:
                continue
            # The uid keeps us from writing to a younger pod of the same name.
            change = {"metadata": {"uid": metadata["uid"]}, "status": status}
            try:
                await self._runtime.client.patch(
                    PODS, metadata["name"], change, metadata["namespace"], subresource="status"
                )
                written = status
            except (Conflict, Refused) as error:
                _log.info("pod status refused", pod=self._name, error=str(error))
            except EdgefarmError as error:
                _log.info("pod status not written", pod=self._name, error=str(error))
                self._dirty.set()
                await asyncio.sleep(0.5)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
