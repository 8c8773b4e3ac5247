"""NACK for tests: the one that EDGEFARM_NACK names, or a stand-in that does with Stream objects what NACK was seen to
do, quirks included. Both log in with nothing but what the Account object and its Secret say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError

from edgefarm import names
from edgefarm.errors import Conflict, KubernetesRefused, NackUnavailable
from edgefarm.nats.creds import parse_creds
from edgefarm.units import parse_duration
from localcluster.process import LocalProcess
from reconciler.adapters.kube import KubeClient
from reconciler.configuration import StreamsConfiguration
from reconciler.context import Key
from reconciler.ports import NACK_ACCOUNT, NACK_STREAM, SECRET, STREAM, Kind, Object
from tests.natskit import Connection
from tests.reconciler.nack_schema import nack_definitions
from tests.reconciler.streamkit import NAMESPACE, Streams
from tests.reconciler.world import CRD, World

FINALIZER = "stream.nats.io/finalizer"
_NOT_FOUND = 10059


@dataclass
class NackStreams:
    """A test's Streams with the driver `nack`, and a NACK that works (or is away)."""

    streams: Streams
    real: Path | None
    work: Path

    async def objects(self) -> list[Object]:
        """NACK's Stream objects for the test's network."""
        labels = f"{names.LABEL_OF_NETWORK}={self.streams.site.network}"
        return (await self.streams.site.reconciler.kube.list(NACK_STREAM, NAMESPACE, labels=labels))[0]

    async def object(self, name: str = "readings", domain: str = names.MAIN_DOMAIN) -> Object | None:
        """NACK's object for a Stream in a domain."""
        found = names.nack_stream(self.streams.site.factory, name, domain)
        return await self.streams.site.reconciler.kube.get(NACK_STREAM, NAMESPACE, found)

    async def login(self) -> tuple[Object | None, Object | None]:
        """NACK's Account and its Secret."""
        kube, name = self.streams.site.reconciler.kube, names.nack_account(self.streams.site.network)
        return await kube.get(NACK_ACCOUNT, NAMESPACE, name), await kube.get(SECRET, NAMESPACE, name)

    def configure(self, driver: str) -> None:
        """Have the reconciler's configuration name this driver; all roots are due, as in the process."""
        reconciler = self.streams.site.reconciler
        reconciler.configuration = replace(reconciler.world.configuration, streams=StreamsConfiguration(driver))
        reconciler.woken.add(Key("network", NAMESPACE, self.streams.site.network))
        reconciler.woken.add(Key("nack", NAMESPACE, self.streams.site.network))
        self.wake()

    def wake(self) -> None:
        """All Streams of the test are due."""
        reconciler = self.streams.site.reconciler
        for obj in reconciler.informers(STREAM).list(self.streams.site.factory):
            reconciler.woken.add(Key("stream", self.streams.site.factory, obj["metadata"]["name"]))

    async def settle(self, condition: Callable[[], Awaitable[bool]], what: str, within: float = 30) -> None:
        """Pass over what is woken, as often as it takes until the condition holds."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self.streams.site.reconciler.see_leafs()
                    try:
                        await self.streams.site.reconciler.converge()
                    except NackUnavailable:
                        self.wake()
                    if await condition():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            streams = (await self.streams.site.reconciler.kube.list(STREAM, self.streams.site.factory))[0]
            seen = [_gist(obj) for obj in (*streams, *await self.objects())]
            raise AssertionError(f"not within {within:g} s: {what}; {seen}") from None

    async def ready(self, *streams: str) -> None:
        """Wait until these Streams (default: readings) are Ready."""

        async def all_ready() -> bool:
            found = [await self.streams.condition("Ready", name) for name in streams or ("readings",)]
            return all(status == "True" for status, _, _ in found)

        await self.settle(all_ready, f"ready: {streams}")

    @contextlib.asynccontextmanager
    async def nack(self) -> AsyncIterator[None]:
        """NACK works meanwhile."""
        run = self._real if self.real is not None else self._stand_in
        async with run():
            yield

    @contextlib.asynccontextmanager
    async def _real(self) -> AsyncIterator[None]:
        api = self.streams.site.world.api
        command = [str(self.real), "--control-loop", "--crd-connect", "--namespace", NAMESPACE]
        command += ["--kubeconfig", str(api.kubeconfig), "--sync-interval", "2s"]
        command += ["--cache-dir", str(self.work / "nack"), "--health-probe-bind-address", "127.0.0.1:0"]
        log = self.work / "nack.log"
        process = LocalProcess.start("nack", command, log=log)
        try:
            # It listens on port 8080 of all addresses for its metrics, and ends where that is taken.
            process.wait_until(lambda: "Starting workers" in log.read_text(), "working")
            yield
        finally:
            process.stop()

    @contextlib.asynccontextmanager
    async def _stand_in(self) -> AsyncIterator[None]:
        task = asyncio.create_task(StandIn(self.streams.site.reconciler.kube, self.streams.site.world).run())
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class StandIn:
    """What NACK does in its control loop with Stream objects, as far as we make use of it."""

    def __init__(self, kube: KubeClient, world: World) -> None:
        self._kube = kube
        self._world = world

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            for obj in (await self._kube.list(NACK_STREAM, NAMESPACE))[0]:
                with contextlib.suppress(Conflict, KubernetesRefused):
                    await self._work(obj)
            await asyncio.sleep(0.05)

    async def _work(self, obj: Object) -> None:
        metadata, finalizers = obj["metadata"], list(obj["metadata"].get("finalizers") or [])
        if "deletionTimestamp" in metadata:
            if FINALIZER in finalizers and (obj["spec"].get("preventDelete") or await self._delete(obj)):
                await self._finalize(obj, [each for each in finalizers if each != FINALIZER])
            return
        if FINALIZER not in finalizers:
            obj = await self._finalize(obj, [*finalizers, FINALIZER])
        problem = await self._ensure(obj)
        condition = {"type": "Ready", "status": "False" if problem else "True", "message": problem, "reason": "x"}
        status = {"conditions": [{**condition, "lastTransitionTime": "2026-03-01T12:00:00Z"}]}
        status["observedGeneration"] = (
            (obj.get("status") or {}).get("observedGeneration", 0) if problem else obj["metadata"]["generation"]
        )
        if status != obj.get("status"):
            await self._kube.patch(NACK_STREAM, NAMESPACE, metadata["name"], {"status": status}, subresource="status")

    async def _finalize(self, obj: Object, finalizers: list[str]) -> Object:
        return await self._kube.replace(NACK_STREAM, {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})

    async def _delete(self, obj: Object) -> bool:
        try:
            answer = await self._request(obj, "DELETE", None)
        except NatsError:
            return False
        return "error" not in answer or answer["error"]["err_code"] == _NOT_FOUND

    async def _ensure(self, obj: Object) -> str:
        """What went wrong; empty when nothing did."""
        try:
            found = await self._request(obj, "INFO", None)
            if "error" in found and found["error"]["err_code"] != _NOT_FOUND:
                return str(found["error"]["description"])
            before = found.get("config")
            wanted = {**(before or {"max_msgs_per_subject": -1}), **_config(obj["spec"])}
            wanted["metadata"] = obj["spec"].get("metadata")
            if before is not None and _same(before, wanted):
                return ""
            answer = await self._request(obj, "CREATE" if before is None else "UPDATE", {**wanted, "pedantic": True})
        except NatsError as error:
            return f"nats: {error}"
        return str(answer.get("error", {}).get("description", ""))

    async def _request(self, obj: Object, verb: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        spec = obj["spec"]
        account = await self._kube.get(NACK_ACCOUNT, NAMESPACE, spec["account"])
        if account is None:
            raise NatsError("no account")
        secret = await self._kube.get(SECRET, NAMESPACE, account["spec"]["creds"]["secret"]["name"])
        if secret is None:
            raise NatsError("no secret")
        text = base64.b64decode(secret["data"][account["spec"]["creds"]["file"]]).decode()
        (url,) = account["spec"]["servers"]
        payload = b"" if body is None else json.dumps(body).encode()
        async with await Connection.open(url, self._world.authority, parse_creds(text)) as client:
            subject = f"$JS.{spec['jsDomain']}.API.STREAM.{verb}.{spec['name']}"
            answer = await client.client.request(subject, payload, timeout=2)
        found = json.loads(answer.data)
        assert isinstance(found, dict)
        return found


def _config(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A limit of messages per subject is only ever set, never lifted; sources and mirrors only ever added."""
    config: dict[str, Any] = {
        "name": spec["name"],
        "subjects": spec.get("subjects") or [],
        "storage": spec["storage"],
        "retention": spec["retention"],
        "discard": spec["discard"],
        "max_consumers": spec["maxConsumers"],
        "max_msgs": spec["maxMsgs"],
        "max_bytes": spec["maxBytes"],
        "max_msg_size": spec["maxMsgSize"],
        "num_replicas": spec["replicas"],
        "max_age": _nanoseconds(spec["maxAge"]),
    }
    if spec.get("maxMsgsPerSubject", 0) > 0:
        config["max_msgs_per_subject"] = spec["maxMsgsPerSubject"]
    if "duplicateWindow" in spec:
        config["duplicate_window"] = _nanoseconds(spec["duplicateWindow"])
    if "mirror" in spec:
        config["mirror"] = _link(spec["mirror"])
    if "sources" in spec:
        config["sources"] = [_link(source) for source in spec["sources"]]
    return config


def _nanoseconds(text: str) -> int:
    return 0 if text == "0s" else int(parse_duration(text).total_seconds()) * 10**9


def _link(source: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": source["name"], "external": {"api": source["externalApiPrefix"], "deliver": ""}}


def _same(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    ours = {key: text for key, text in before.get("metadata", {}).items() if not key.startswith("_nats.")}
    return ours == wanted["metadata"] and all(
        (before.get(name) or None) == (value or None) for name, value in wanted.items() if name != "metadata"
    )


def _gist(obj: Object) -> Any:
    return obj["metadata"]["name"], obj["metadata"].get("deletionTimestamp"), obj.get("status")


def nack_binary() -> Path | None:
    """The jetstream-controller that EDGEFARM_NACK names."""
    named = os.environ.get("EDGEFARM_NACK")
    return Path(named) if named else None


async def install_nack(kube: KubeClient) -> None:
    """Install NACK's definitions, and return when its kinds are served."""
    for definition in nack_definitions():
        with contextlib.suppress(Conflict):
            await kube.create(CRD, definition)
    await _until_offered(kube, offered=True)


async def remove_nack(kube: KubeClient) -> None:
    """Remove the definitions of what we make for NACK, and return when they are not served any more."""
    for kind in (NACK_STREAM, NACK_ACCOUNT):
        await kube.delete(CRD, None, f"{kind.plural}.{kind.group}")
    await _until_offered(kube, offered=False)


async def _until_offered(kube: KubeClient, *, offered: bool) -> None:
    for kind in (NACK_STREAM, NACK_ACCOUNT):
        await Streams.until(lambda kind=kind: _is(kube, kind, offered), f"{kind.plural} offered: {offered}")  # type: ignore[misc]


async def _is(kube: KubeClient, kind: Kind, offered: bool) -> bool:
    try:
        await kube.list(kind, NAMESPACE)
    except KubernetesRefused:
        return not offered
    return offered
