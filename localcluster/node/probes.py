"""Probes of containers: HTTP, TCP and commands, each answered with None or one sentence that says what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

import aiohttp

from localcluster.client import Json


@dataclass(frozen=True)
class ProbeSpec:
    """A probe's action and numbers (seconds, counts), with Kubernetes' defaults filled in."""

    action: Json
    initial_delay: float
    period: float
    timeout: float
    failure_threshold: int
    success_threshold: int

    @classmethod
    def of(cls, container: Json, kind: str) -> Self | None:
        """The container's `startupProbe`, `livenessProbe` or `readinessProbe`; None when it has none."""
        probe = container.get(kind)
        if not probe:
            return None
        return cls(
            action=probe,
            initial_delay=probe.get("initialDelaySeconds") or 0,
            period=probe.get("periodSeconds") or 10,
            timeout=probe.get("timeoutSeconds") or 1,
            failure_threshold=probe.get("failureThreshold") or 3,
            success_threshold=probe.get("successThreshold") or 1,
        )


@dataclass(frozen=True)
class ProbeTarget:
    """What probes of one container act on."""

    session: aiohttp.ClientSession
    pod_ip: str
    ports: dict[str, int]
    rewrite: Callable[[str], str]
    execute: Callable[[list[str], float], Awaitable[str | None]]
    """Runs a command beside the container, at most so many seconds; None or what went wrong."""


async def check(probe: ProbeSpec, target: ProbeTarget) -> str | None:
    """Probe once: None is success."""
    action = probe.action
    if "httpGet" in action:
        return await _http(action["httpGet"], probe.timeout, target)
    if "tcpSocket" in action:
        return await _tcp(action["tcpSocket"], probe.timeout, target)
    if "exec" in action:
        return await target.execute(list(action["exec"]["command"]), probe.timeout)
    return "the node runner supports httpGet, tcpSocket and exec probes only"


async def _http(action: Json, seconds: float, target: ProbeTarget) -> str | None:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = target.rewrite(action.get("host") or target.pod_ip)
    url = f"{scheme}://{host}:{_port(action['port'], target)}/{str(action.get('path') or '/').lstrip('/')}"
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
    limit = aiohttp.ClientTimeout(total=seconds)
    try:
        # The kubelet does not verify certificates either.
        async with target.session.get(url, headers=headers, timeout=limit, ssl=False, allow_redirects=False) as answer:
            return None if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"
    except TimeoutError:
        return f"HTTP probe: no answer from {url} within {seconds:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return f"HTTP probe: {error}"


async def _tcp(action: Json, seconds: float, target: ProbeTarget) -> str | None:
    host, port = target.rewrite(action.get("host") or target.pod_ip), _port(action["port"], target)
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, OSError) as error:
        return f"TCP probe: cannot connect to {host}:{port}: {error}"
    writer.close()
    return None


def _port(port: int | str, target: ProbeTarget) -> int:
    return target.ports.get(port, 0) if isinstance(port, str) and not port.isdigit() else int(port)
