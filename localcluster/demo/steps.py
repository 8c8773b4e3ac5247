"""The steps of `make demo`: each shows one promise of the product on the running platform and checks it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.api.network import Network
from edgefarm.api.policy import Policy
from edgefarm.api.stream import Stream
from edgefarm.nats import jwt
from edgefarm.nats.claims import ScopedKey
from edgefarm.nats.jetstream_rights import StoredSubjects
from edgefarm.nats.templates import JETSTREAM_CONTROLLER_TEMPLATE, PermissionTemplate
from edgefarm.vault import TransitKey
from localcluster.client import DEPLOYMENTS, EVENTS, PODS, SERVICE_ACCOUNTS, Json, has_condition
from localcluster.demo.credentials import connection, credentials_of
from localcluster.demo.installation import Installation
from localcluster.demo.kubectl import kubectl
from localcluster.demo.observer import POLICIES, STREAMS, Observer, eventually
from localcluster.demo.report import CheckFailed
from localcluster.node.images import EXAMPLES_IMAGE
from localcluster.platform import ROOT
from reconciler.desired.account import Envelope, account_public, claims_of
from reconciler.desired.rights import rights_of

EXAMPLE: Final = ROOT / "examples" / "quickstart"
_WORKLOADS: Final = (
    ("factory", "sensor"),
    ("office", "dashboard"),
    ("factory", "dapr-sensor"),
    ("office", "dapr-dashboard"),
    ("elsewhere", "listener"),
)
_POD: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "containers": [
            {"name": "app", "image": EXAMPLES_IMAGE, "command": ["python", "-c", "import time; time.sleep(3600)"]}
        ]
    },
}


@dataclass
class Demo:
    """The demo's world; every public method is one step and returns one sentence of what was seen."""

    observer: Observer[Installation]
    note: Callable[[str], None]

    def __post_init__(self) -> None:
        self.platform = self.observer.platform
        self.kube = self.platform.kube

    async def apply_example(self) -> str:
        """`kubectl apply -f examples/quickstart`."""
        applied = await kubectl(self.platform, "apply", "-f", str(EXAMPLE))
        for line in applied:
            self.note(f"    {line}")
        await self._start_intruder()
        return f"kubectl applied {len(applied)} objects; and a pod in a namespace that no network lists"

    async def network_is_ready(self) -> str:
        """Network foo is Ready, and every server has stored exactly the account that its objects ask for."""
        network = await eventually("Network foo is Ready", lambda: self._ready_network("foo"), within=30)
        account = network["status"]["account"]
        stored = await eventually(
            "the account on the servers is the computed one", lambda: self._as_computed(network, account)
        )
        keys = len(stored["nats"]["signing_keys"])
        return f"account {account[:12]}… with {keys} scoped keys, read back from the resolver, is the one computed"

    async def policies_have_grants(self) -> str:
        """Default policy copies, service accounts, Vault policies, roles and documents."""
        for namespace in ("factory", "office"):
            copy = await self.observer.policy(namespace, "foo")
            if copy["spec"].get("allowpub") != ["hello.>"]:
                raise CheckFailed(f"the default policy in {namespace} is not a copy: {copy['spec']}")
        for namespace, policy in (("factory", "sensor"), ("office", "dashboard")):
            await eventually(
                f"Policy {policy} has service account, Vault policy and role",
                lambda namespace=namespace, policy=policy: self._granted(namespace, policy),  # type: ignore[misc]
            )
        return "default policy in factory and office; sensor and dashboard: service account, Vault policy and role"

    async def workloads_run(self) -> str:
        """Pods that only carry the label were admitted with the sidecar, and all of them are running."""
        for namespace, name in _WORKLOADS:
            await self.kube.wait_for(DEPLOYMENTS, name, namespace, until=has_condition("Available"), timeout=60)
            pod = await self.observer.pod(namespace, name)
            added = [container["name"] for container in pod["spec"].get("initContainers", ())]
            if added != [names.SIDECAR_CONTAINER]:
                raise CheckFailed(f"pod of {name} has the init containers {added}")
        return f"{len(_WORKLOADS)} Deployments are available, each pod with {names.SIDECAR_CONTAINER}"

    async def messages_arrive(self) -> str:
        """Mode nats and mode dapr: what was published is received."""
        nats = await eventually("the dashboard receives from the sensor", self._sensor_at_dashboard)
        dapr = await eventually(
            "the Dapr dashboard receives from the Dapr sensor", self._reading_at_dashboard, within=30
        )
        return f"mode nats: {nats['count']} messages, {nats['missing']} missing; mode dapr: {dapr['count']} messages"

    async def forbidden_subjects_are_refused(self) -> str:
        """The server itself refuses what the Policy does not allow."""
        refused: list[str] = []
        async with (
            credentials_of(self.platform, "foo", "factory", "sensor") as creds,
            connection(self.platform, creds, refused) as client,
        ):
            await client.publish("sensor.demo", b'{"number": 0}')
            await client.publish("secret.demo", b"")
            await client.flush()
            await client.subscribe("sensor.>")
            await client.flush()
            await eventually("both violations were reported", lambda: _enough(refused, 2))
        expected = (
            'permissions violation for publish to "secret.demo"',
            'permissions violation for subscription to "sensor.>"',
        )
        if len(refused) != 2 or not all(words in text.lower() for words, text in zip(expected, refused, strict=True)):
            raise CheckFailed(f"the server said: {refused}")
        return "sensor may publish sensor.demo; publish secret.demo and subscribe sensor.> are permissions violations"

    async def networks_are_isolated(self) -> str:
        """A subscriber of everything in network bar hears nothing of network foo."""
        before = (await self._sensor_at_dashboard())["count"]
        await eventually("ten more messages flow in foo", lambda: self._count_above(before + 10))
        heard = await self.observer.ask("elsewhere", "listener")
        if heard:
            raise CheckFailed(f"the listener in network bar received {heard}")
        return "the listener of > in network bar received nothing while foo's messages flowed"

    async def outsiders_get_nothing(self) -> str:
        """A pod in a namespace that is not listed gets no credentials, and an Event says why."""
        event = await eventually("an Event on the pod says why", lambda: self._warning_on("outsider", "intruder"))
        pod = await self.kube.get(PODS, "intruder", "outsider")
        waiting = await eventually("the sidecar says what is missing", lambda: self._sidecar_waits(pod))
        await self.kube.delete(PODS, "intruder", "outsider")
        self.note(f"    Event: {event}")
        self.note(f"    sidecar: {waiting}")
        return "not ready, application not started; Event and sidecar say why"

    async def unlabelled_pods_are_untouched(self) -> str:
        """Without the label the webhook is not even asked."""
        meta = {"name": "bystander", "namespace": "office"}
        created = (await self.kube.apply([{**_POD, "metadata": meta}]))[0]
        await self.kube.delete(PODS, "bystander", "office")
        containers = created["spec"].get("initContainers", []) + created["spec"]["containers"]
        if [container["name"] for container in containers] != ["app"] or "annotations" in created["metadata"]:
            raise CheckFailed(f"the pod was changed: {containers}")
        return "one container as written, no annotation"

    async def deleted_policy_cuts(self) -> str:
        """Deleting a Policy ends its live connections within 2 s; recreated, the publisher is back by itself."""
        policy = await self.observer.policy("factory", "sensor")
        key = policy["status"]["key"]
        if not await self.observer.connections(key):
            raise CheckFailed("the sensor has no connection to cut")
        started = time.monotonic()
        await self.kube.delete(POLICIES, "sensor", "factory")
        await eventually("the connection is cut within 2 s", lambda: self._disconnected(key), within=2)
        cut = time.monotonic() - started
        before = await self._sensor_at_dashboard()
        started = time.monotonic()
        await kubectl(self.platform, "apply", "-f", str(EXAMPLE / "2-policies.yaml"))
        await eventually("the sensor is back", lambda: self._count_above(before["count"]), within=30)
        after = await self._sensor_at_dashboard()
        if after["missing"]:
            raise CheckFailed(f"{after['missing']} messages are missing")
        return f"cut after {cut:.2f} s; back {time.monotonic() - started:.1f} s after the Policy, nothing missing"

    async def credentials_renew(self) -> str:
        """Sidecars renew on their schedule."""
        pod = await self.observer.pod("factory", "sensor")
        first = await self._renewals(pod)
        last = await eventually("two more renewals", lambda: self._renewals_above(pod, first + 2), within=30)
        return f"{last:g} renewals by the sensor's sidecar so far, without a restart"

    async def keys_rotate(self) -> str:
        """The Policy's key rotates, the old version is dropped, and no message is lost."""
        before = await self._sensor_at_dashboard()
        old = (await self.observer.policy("factory", "sensor"))["status"]
        rotation = _now()
        await self._annotate(names.ANNOTATION_ROTATE_KEYS_AT, rotation)
        new = await eventually("the Policy has a new key", lambda: self._key_after(old["keyVersion"]))
        pod = await self.observer.pod("factory", "sensor")
        renewed = await self._renewals(pod)
        await eventually("the sidecar uses the new key", lambda: self._renewals_above(pod, renewed + 1), within=30)
        if not await self.observer.connections(old["key"]):
            raise CheckFailed("the connection was cut although the old key overlaps")
        await self._annotate(names.ANNOTATION_REVOKE_KEYS_BEFORE, rotation)
        await eventually("the old key is gone", lambda: self._disconnected(old["key"]))
        await eventually("the sensor is connected by the new key", lambda: self._connected(new["key"]))
        seen = await self._sensor_at_dashboard()
        await eventually("messages flow by the new key", lambda: self._count_above(seen["count"] + 5))
        after = await self._sensor_at_dashboard()
        if after["missing"]:
            raise CheckFailed(f"{after['missing']} messages are missing")
        return (
            f"version {old['keyVersion']} → {new['keyVersion']}; {after['count'] - before['count']} messages "
            "during rotation and removal of the old version, none missing"
        )

    async def restart_writes_nothing(self) -> str:
        """kill -9 of the reconciler; the next one finds everything as it should be."""
        pod = await self.observer.controller()
        await eventually("the world is at rest", self._at_rest)
        before = await self.observer.snapshot()
        status = pod["status"]["containerStatuses"][0]
        os.kill(int(status["containerID"].removeprefix("local://")), signal.SIGKILL)
        await eventually("the reconciler runs again", lambda: self._restarted(status["restartCount"]), within=30)
        passes = await eventually("it has looked at everything", self._reconciled_all, within=45)
        after = await self.observer.snapshot()
        changed = sorted(what for what in before.keys() | after.keys() if before.get(what) != after.get(what))
        if changed:
            raise CheckFailed(f"the restarted reconciler changed {', '.join(changed)}")
        return (
            f"killed and restarted; {passes:g} passes, and none of {len(after)} objects, keys, grants, accounts changed"
        )

    # -- what the steps look at --------------------------------------------------------------------------------------

    async def _ready_network(self, name: str) -> Json | None:
        network = await self.observer.network(name)
        return network if has_condition("Ready")(network) else None

    async def _as_computed(self, network: Json, account: str) -> Json | None:
        """The stored claims, when they equal what the objects and keys of this moment ask for."""
        keys: list[ScopedKey] = []
        vault = self.platform.vault
        streams = [Stream.parse(obj) for obj in (await self.kube.list(STREAMS))[0]]
        stored = [StoredSubjects(stream.name, stream.subjects) for stream in streams if stream.network == "foo"]
        for obj in (await self.kube.list(POLICIES))[0]:
            policy = Policy.parse(obj)
            if obj.get("status", {}).get("network") != network["metadata"]["name"]:
                continue
            name = names.policy_key("foo", policy.meta.namespace, policy.meta.name)
            consumer = names.consumer(policy.meta.namespace, policy.meta.name)
            template = rights_of(policy.permissions, stored, consumer).template
            keys += _scoped_keys(vault.key(name), f"{policy.meta.namespace}.{policy.meta.name}", template)
        keys += _scoped_keys(vault.key(names.controller_key("foo")), "controller", JETSTREAM_CONTROLLER_TEMPLATE)
        identity = vault.key(names.account_key("foo"))
        if identity is None or account_public(identity.latest.public_key) != account:
            return None
        held = await self.observer.stored_account(account)
        envelope = Envelope(held["iss"], held["jti"], held["iat"])
        computed = claims_of(Network.parse(network), account, keys, envelope)
        return held if jwt.same_body(held, computed) else None

    async def _granted(self, namespace: str, policy: str) -> bool:
        await self.kube.get(SERVICE_ACCOUNTS, policy, namespace)
        name = names.grant_role("foo", namespace, policy)
        vault = self.platform.vault
        role, text = vault.role(name), vault.policy(names.vault_policy(name))
        return role is not None and text is not None and names.policy_key("foo", namespace, policy) in text

    async def _sensor_at_dashboard(self) -> Any:
        received = await self.observer.ask("office", "dashboard")
        pod = await self.observer.pod("factory", "sensor")
        return received[f"sensor.{pod['metadata']['name']}"]

    async def _reading_at_dashboard(self) -> Any:
        received = await self.observer.ask("office", "dapr-dashboard", "/received")
        return received["reading.dapr"]

    async def _count_above(self, count: int) -> bool:
        return bool((await self._sensor_at_dashboard())["count"] > count)

    async def _start_intruder(self) -> None:
        await self.kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "outsider"}}])
        await self.kube.wait_for(SERVICE_ACCOUNTS, "default", "outsider", until=lambda obj: obj is not None)
        meta = {"name": "intruder", "namespace": "outsider", "labels": {names.LABEL_NETWORK: "foo"}}
        await self.kube.apply([{**_POD, "metadata": meta}])

    async def _warning_on(self, namespace: str, pod: str) -> str | None:
        events, _ = await self.kube.list(EVENTS, namespace)
        said = [
            f"{event['reason']}: {event['message']}"
            for event in events
            if event["type"] == "Warning" and event["involvedObject"].get("name") == pod and "foo" in event["message"]
        ]
        return said[0] if said else None

    async def _sidecar_waits(self, pod: Json) -> str | None:
        current = await self.kube.get(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
        statuses = current["status"].get("containerStatuses", [])
        if not statuses or "running" in statuses[0].get("state", {}):
            raise CheckFailed("the application of a pod without credentials was started")
        return (await self.observer.sidecar(current, "/readyz")).strip() or None

    async def _connected(self, key: str) -> bool:
        return bool(await self.observer.connections(key))

    async def _disconnected(self, key: str) -> bool:
        return not await self.observer.connections(key)

    async def _renewals(self, pod: Json) -> float:
        return sum_of(await self.observer.sidecar(pod, "/metrics"), "edgefarm_sidecar_renewals_total")

    async def _renewals_above(self, pod: Json, least: float) -> float | None:
        count = await self._renewals(pod)
        return count if count >= least else None

    async def _annotate(self, annotation: str, when: str) -> None:
        patch = {"metadata": {"annotations": {annotation: when}}}
        await self.kube.patch(POLICIES, "sensor", patch, "factory")

    async def _key_after(self, version: int) -> Json | None:
        status: Json = (await self.observer.policy("factory", "sensor"))["status"]
        return status if status["keyVersion"] > version else None

    async def _at_rest(self) -> bool:
        before = await self.observer.snapshot()
        await asyncio.sleep(0.5)
        return await self.observer.snapshot() == before

    async def _restarted(self, count: int) -> bool:
        pod = await self.observer.controller()
        return bool(pod["status"]["containerStatuses"][0]["restartCount"] > count)

    async def _reconciled_all(self) -> float | None:
        """Passes of the network controller since its start, when it is at least one per network."""
        pod = await self.observer.controller()
        metrics = await self.observer.metrics_of(pod)
        passes = sum_of(metrics, "edgefarm_reconciles_total", 'controller="network"', 'result="success"')
        return passes if passes >= 2 else None


def _scoped_keys(key: TransitKey | None, role: str, template: PermissionTemplate) -> list[ScopedKey]:
    versions = key.versions.values() if key is not None else ()
    return [ScopedKey(account_public(version.public_key), role, template) for version in versions]


def sum_of(metrics: str, name: str, *labels: str) -> float:
    """Sum of a counter's samples in Prometheus' text format whose labels contain all of `labels`."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.partition("{")[0].partition(" ")[0] == name and all(label in line for label in labels)
    )


async def _enough(items: list[str], count: int) -> bool:
    return len(items) >= count


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
