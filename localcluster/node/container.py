"""One container of a pod: started, probed, restarted with back-off and stopped as the kubelet does it."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edgefarm.errors import EdgefarmError
from localcluster.client import Json
from localcluster.events import timestamp
from localcluster.node.images import UnknownImage
from localcluster.node.launcher import Command, Launcher, RunningProcess
from localcluster.node.logs import Output
from localcluster.node.probes import ProbeSpec, ProbeTarget, check
from localcluster.node.sources import MissingSource
from localcluster.node.waiting import set_within

#: kubelet does not limit a hook.
_HOOK_SECONDS: Final = 86_400.0


class Restart(enum.Enum):
    """When a container that ended is started again."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"

    def wanted(self, code: int) -> bool:
        return self is Restart.ALWAYS or (self is Restart.ON_FAILURE and code != 0)


@dataclass(frozen=True)
class Timing:
    """Seconds. Shorter than a kubelet's, so that a demo need not wait; the order of events is the same."""

    backoff: float = 0.5
    backoff_max: float = 10.0
    steady: float = 20.0
    """A container that ran for so long starts over with the shortest back-off."""
    probe: float = 0.2
    """A probe that has not succeeded yet is tried at this interval, where its own period is longer."""
    grace_max: float = 10.0


@dataclass(frozen=True)
class ContainerView:
    """What is known of a container at one moment, in the words of a containerStatus."""

    name: str
    image: str
    state: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last_state: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""

    @property
    def exit_code(self) -> int | None:
        """The exit status while the container is terminated."""
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])


@dataclass(frozen=True)
class Launch:
    """A container ready to be started."""

    command: Command
    target: ProbeTarget


@dataclass(frozen=True)
class ContainerHost:
    """What a container needs from its pod."""

    launcher: Launcher
    timing: Timing
    prepare: Callable[[Json], Awaitable[Launch]]
    """Resolves image, environment and mounts of a container; may raise UnknownImage or MissingSource."""
    changed: Callable[[], None]
    event: Callable[[str, str], Awaitable[None]]
    """Records a warning Event about the pod: reason, message."""


class Container:
    """Runs one container from `launch` until it ends for good or is stopped."""

    def __init__(self, spec: Json, host: ContainerHost, *, restarts: int = 0) -> None:
        self.spec = spec
        self.view = ContainerView(spec["name"], spec.get("image", ""), restarts=restarts)
        self.started = asyncio.Event()
        """Set once the startup probe has succeeded for the first time."""
        self.post_started = asyncio.Event()
        """Set once the postStart hook of the first start has ended, however; at once where there is none."""
        self._post_start = (spec.get("lifecycle") or {}).get("postStart", {}).get("exec")
        self._host = host
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: RunningProcess | None = None
        self._launch: Launch | None = None
        self._output: Output | None = None
        self._earlier_output: Output | None = None

    def output(self, *, previous: bool) -> Output | None:
        """What the present run printed, or the last one while none is; with `previous`, the run before a restart."""
        waits = "waiting" in self.view.state
        return self._earlier_output if previous and not waits else self._output

    @property
    def is_sidecar(self) -> bool:
        """Whether this init container is a native sidecar."""
        return bool(self.spec.get("restartPolicy") == "Always")

    def launch(self, restart: Restart) -> None:
        if not self._post_start:
            self.post_started.set()
        self._task = asyncio.create_task(self._run(restart), name=f"container {self.view.name}")

    async def finished(self) -> int:
        """Wait until the container has ended and will not be restarted; its exit status."""
        assert self._task is not None
        await asyncio.shield(self._task)
        return self.view.exit_code or 0

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM, SIGKILL after `grace` seconds; returns when nothing of it runs."""
        self._stop.set()
        if self._process is not None:
            await self._terminate(self._process, grace)
        elif self._task is not None:
            self._task.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def crash(self) -> None:
        """Die at once and without any hook, as in a power cut."""
        self._stop.set()
        if self._process is not None:
            self._process.kill()
        elif self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Return when nothing of it runs, after `crash`."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def renew(self) -> None:
        """Be ready for another `launch` after it has ended, which counts as a restart when it ever ran."""
        if "waiting" not in self.view.state:
            self.view = replace(self.view, last_state=self.view.state, restarts=self.view.restarts + 1)
        self._show(state={"waiting": {"reason": "PodInitializing"}}, started=False, ready=False)
        for event in (self._stop, self.started, self.post_started):
            event.clear()

    async def _run(self, restart: Restart) -> None:
        timing = self._host.timing
        backoff, clock = timing.backoff, asyncio.get_running_loop().time
        while not self._stop.is_set():
            began = clock()
            code = await self._run_once()
            self.post_started.set()
            if code is not None:
                if self._stop.is_set() or not restart.wanted(code):
                    return
                if clock() - began > timing.steady:
                    backoff = timing.backoff
                self._back_off(backoff)
            await set_within(self._stop, backoff)
            backoff = min(2 * backoff, timing.backoff_max)

    async def _run_once(self) -> int | None:
        """Start and wait for the end: the exit status; None when it could not be started."""
        try:
            launch = await self._host.prepare(self.spec)
            output = Output.begin(launch.command.log)
            process = self._host.launcher.start(launch.command)
        except UnknownImage as error:
            repeated = self.view.state.get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
            await self._cannot_start("ImagePullBackOff" if repeated else "ErrImagePull", str(error))
            return None
        except (MissingSource, EdgefarmError) as error:
            await self._cannot_start("CreateContainerConfigError", str(error))
            return None
        except OSError as error:
            await self._cannot_start("RunContainerError", f"cannot start {self.spec.get('command')}: {error}")
            return None
        self._process, self._launch = process, launch
        self._earlier_output, self._output = self._output, output
        began = timestamp()
        self._show(state={"running": {"startedAt": began}}, container_id=f"local://{process.pid}")
        probes = asyncio.create_task(self._probe(process, launch.target), name=f"probes of {self.view.name}")
        code = await process.exited
        self._process = None
        output.finish()
        probes.cancel()
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": began,
            "finishedAt": timestamp(),
            "containerID": self.view.container_id,
        }
        self._show(state={"terminated": terminated}, started=False, ready=False)
        return code

    def _back_off(self, seconds: float) -> None:
        message = f"back-off {seconds:g}s restarting failed container={self.view.name}"
        self._show(
            state={"waiting": {"reason": "CrashLoopBackOff", "message": message}},
            last_state=self.view.state,
            restarts=self.view.restarts + 1,
        )

    async def _cannot_start(self, reason: str, message: str) -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        if self.view.state != waiting:
            self._show(state=waiting)
            await self._host.event("Failed", f"container {self.view.name}: {message}")

    async def _probe(self, process: RunningProcess, target: ProbeTarget) -> None:
        if self._post_start:
            problem = await target.execute(list(self._post_start["command"]), _HOOK_SECONDS)
            if problem:
                await self._host.event("FailedPostStartHook", problem)
                await process.stop(self._host.timing.grace_max)
                return
            self.post_started.set()
        startup, liveness, readiness = (
            ProbeSpec.of(self.spec, kind) for kind in ("startupProbe", "livenessProbe", "readinessProbe")
        )
        if startup is not None and (problem := await self._until_failed(startup, target, stop_at_success=True)):
            await self._kill_unhealthy(process, "Startup", problem)
            return
        self._show(started=True, ready=readiness is None)
        self.started.set()
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._watch_readiness(readiness, target))
            if liveness is not None:
                group.create_task(self._watch_liveness(liveness, target, process))

    async def _watch_liveness(self, probe: ProbeSpec, target: ProbeTarget, process: RunningProcess) -> None:
        if problem := await self._until_failed(probe, target, stop_at_success=False):
            await self._kill_unhealthy(process, "Liveness", problem)

    async def _watch_readiness(self, probe: ProbeSpec, target: ProbeTarget) -> None:
        await asyncio.sleep(probe.initial_delay)
        successes = failures = 0
        while True:
            problem = await check(probe, target)
            successes, failures = (successes + 1, 0) if problem is None else (0, failures + 1)
            if successes >= probe.success_threshold and not self.view.ready:
                self._show(ready=True)
            elif failures >= probe.failure_threshold and self.view.ready:
                self._show(ready=False)
                await self._host.event("Unhealthy", f"Readiness probe failed: {problem}")
            settled = self.view.ready and problem is None
            await asyncio.sleep(probe.period if settled else min(probe.period, self._host.timing.probe))

    async def _until_failed(self, probe: ProbeSpec, target: ProbeTarget, *, stop_at_success: bool) -> str:
        """Probe until the failure threshold is reached and say why; or empty, at the first success if so wanted.

        While a start is awaited it is probed more often than asked for; failures count once per period, so that a
        container has as much time as its author gave it.
        """
        clock, failures, counted = asyncio.get_running_loop().time, 0, float("-inf")
        await asyncio.sleep(probe.initial_delay)
        while True:
            problem = await check(probe, target)
            if problem is None:
                if stop_at_success:
                    return ""
                failures = 0
            elif clock() - counted >= probe.period:
                failures, counted = failures + 1, clock()
                if failures >= probe.failure_threshold:
                    return problem
            interval = min(probe.period, self._host.timing.probe) if stop_at_success else probe.period
            await asyncio.sleep(interval)

    async def _kill_unhealthy(self, process: RunningProcess, kind: str, problem: str) -> None:
        self._show(ready=False)
        await self._host.event("Unhealthy", f"{kind} probe failed: {problem}")
        # Not awaited by the probes' task, which ends with the process.
        await process.stop(self._host.timing.grace_max)

    async def _terminate(self, process: RunningProcess, grace: float) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop", {}).get("exec")
        clock = asyncio.get_running_loop().time
        deadline = clock() + grace
        if hook and self._launch is not None:
            problem = await self._launch.target.execute(list(hook["command"]), grace)
            if problem:
                await self._host.event("FailedPreStopHook", problem)
        await process.stop(max(0.0, deadline - clock()))

    def _show(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._host.changed()
