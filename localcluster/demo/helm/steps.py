"""The steps of `make demo-helm`: what upgrade, rollback, uninstall and a new installation leave as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nats.aio.msg import Msg

from edgefarm import names
from localcluster.client import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    Objects,
    is_gone,
)
from localcluster.demo.credentials import connection, credentials_of
from localcluster.demo.helm.platform import HelmPlatform
from localcluster.demo.installation import Installation
from localcluster.demo.observer import NETWORKS, STREAMS, WEBHOOKS, Observer, eventually
from localcluster.demo.report import CheckFailed
from localcluster.demo.steps import Demo
from localcluster.node.images import EXAMPLES_IMAGE

_NAMESPACE: Final = names.CONTROLLER_NAMESPACE
#: Policies, named like their Deployments.
_POLICIES: Final = (("factory", "sensor"), ("office", "dashboard"))
_KEPT_SECRETS: Final = (names.VAULT_UNSEAL_SECRET, names.VAULT_RECOVERY_SECRET, names.SERVERS_CA_SECRET)
_POD: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "newcomer", "namespace": "office", "labels": {names.LABEL_NETWORK: "foo"}},
    "spec": {"containers": [{"name": "app", "image": EXAMPLES_IMAGE, "command": ["python", "-c", "pass"]}]},
}


@dataclass(frozen=True)
class _Kept:
    """What must outlive the release."""

    accounts: dict[str, str]
    keys: dict[str, tuple[str, int]]
    claims: dict[str, str]
    secrets: dict[str, Any]
    stored: int


@dataclass
class HelmDemo:
    """The demo's world; `demo` are the checks of the main demo on this installation."""

    demo: Demo
    platform: HelmPlatform
    note: Callable[[str], None]
    kept: _Kept = field(init=False)

    @classmethod
    def of(cls, observer: Observer[HelmPlatform], note: Callable[[str], None]) -> HelmDemo:
        return cls(Demo(observer, note), observer.platform, note)

    def __post_init__(self) -> None:
        self.kube = self.platform.kube

    @property
    def observer(self) -> Observer[Installation]:
        return self.demo.observer

    async def upgrade(self) -> str:
        """`helm upgrade` to this version: publisher and subscriber do not notice."""
        return await self._unnoticed(
            lambda: self.platform.release.upgrade(self.platform.charts.current, self.platform.values)
        )

    async def rollback(self) -> str:
        """`helm rollback` to the version before."""
        return await self._unnoticed(lambda: self.platform.release.rollback(1))

    async def uninstall(self) -> str:
        """`helm uninstall`: servers and webhook go; Networks, keys and data stay, and labelled pods are admitted."""
        self.kept = await self._to_keep()
        await self._keep_credentials()
        await self.platform.release.uninstall()
        for resource, name in (
            (DEPLOYMENTS, "network-controller"),
            (DEPLOYMENTS, "network-webhook"),
            (STATEFUL_SETS, names.VAULT_SERVER),
            (STATEFUL_SETS, names.NATS_SERVER),
        ):
            await self.kube.wait_for(resource, name, _NAMESPACE, until=is_gone)
        await eventually("no pod of the release is left", self._no_pods)
        if await self.kube.find(WEBHOOKS, names.WEBHOOK_CONFIGURATION) is not None:
            raise CheckFailed("the webhook is still registered")
        admitted = (await self.kube.apply([_POD]))[0]
        await self.kube.delete(PODS, "newcomer", "office", grace_seconds=0)
        if "initContainers" in admitted["spec"]:
            raise CheckFailed("a labelled pod still got a sidecar")
        lost = await self._lost(await self._objects_to_keep())
        if lost:
            raise CheckFailed(f"lost with the release: {', '.join(lost)}")
        return (
            f"no pod and no webhook is left, a labelled pod is admitted; kept: {len(self.kept.accounts)} Networks, "
            f"{len(self.kept.claims)} volumes, {len(self.kept.secrets)} Secrets"
        )

    async def install_again(self) -> str:
        """`helm install` once more: the same keys, data and credentials."""
        await self.observer.system.close()
        await self.platform.release.install(self.platform.charts.current, self.platform.values)
        await self.platform.servers_are_ready()
        await self.platform.product_is_ready()
        self.demo.observer = Observer.of(self.platform)
        await eventually("accounts and keys are those of before", self._same_keys, within=60)
        before = await eventually("the running pods are connected again", self.sensor_at_dashboard, within=60)
        after = await eventually("messages flow between them", lambda: self._more_than(before["count"]), within=30)
        await self._old_credentials_work()
        stored = await self._stored()
        if stored < self.kept.stored:
            raise CheckFailed(f"{self.kept.stored} messages were stored before, {stored} now")
        return (
            f"same accounts and keys; {self.kept.stored} stored messages are still there; running pods are connected "
            f"again ({after['count']} messages), and so is a client with credentials of before"
        )

    # -- what the steps look at --------------------------------------------------------------------------------------

    async def sensor_at_dashboard(self) -> Any:
        """What the dashboard says of the sensor's messages."""
        received = await self.observer.ask("office", "dashboard")
        pod = await self.observer.pod("factory", "sensor")
        return received[f"sensor.{pod['metadata']['name']}"]

    async def _more_than(self, count: int) -> Any:
        seen = await self.sensor_at_dashboard()
        return seen if seen["count"] > count else None

    async def _unnoticed(self, change: Callable[[], Awaitable[None]]) -> str:
        """Change the release, and check that a publisher and a subscriber keep their connections and miss nothing."""
        pods, publisher = await self._pod_uids(), await self._publisher()
        async with (
            credentials_of(self.platform, "foo", "office", "dashboard") as creds,
            connection(self.platform, creds, []) as subscriber,
        ):
            heard: list[int] = []

            async def hear(message: Msg) -> None:
                heard.append(json.loads(message.data)["number"])

            await subscriber.subscribe("sensor.>", cb=hear)
            await change()
            await self.platform.servers_are_ready()
            await self.platform.product_is_ready()
            seen = len(heard)
            await eventually("messages flow", lambda: _more(heard, seen))
            if not subscriber.is_connected:
                raise CheckFailed("the subscriber lost its connection")
        if heard != list(range(heard[0], heard[0] + len(heard))):
            raise CheckFailed("the subscriber missed messages")
        if (now := await self._publisher()) != publisher:
            raise CheckFailed(f"the publisher has another connection: {now}, before {publisher}")
        if await self._pod_uids() != pods:
            raise CheckFailed("pods of tenants were made anew")
        chart = (await self.kube.get(DEPLOYMENTS, "network-controller", _NAMESPACE))["metadata"]["labels"]
        return (
            f"now {chart['helm.sh/chart']}; publisher and subscriber kept their connections, "
            f"{len(heard)} messages meanwhile, none missing"
        )

    async def _publisher(self) -> set[tuple[int, str]]:
        """Number and start of the sensor's connection: another one differs in both."""
        key = (await self.observer.policy("factory", "sensor"))["status"]["key"]
        found = {(connection["cid"], connection["start"]) for connection in await self.observer.connections(key)}
        if not found:
            raise CheckFailed("the sensor is not connected")
        return found

    async def _pod_uids(self) -> set[str]:
        return {(await self.observer.pod(namespace, app))["metadata"]["uid"] for namespace, app in _POLICIES}

    async def _no_pods(self) -> bool:
        return not (await self.kube.list(PODS, _NAMESPACE))[0]

    async def _to_keep(self) -> _Kept:
        objects = await self._objects_to_keep()
        keys = {}
        for namespace, policy in _POLICIES:
            status = (await self.observer.policy(namespace, policy))["status"]
            keys[policy] = (status["key"], status["keyVersion"])
        return _Kept(
            accounts={obj["metadata"]["name"]: obj["status"]["account"] for obj in objects["networks"]},
            keys=keys,
            claims={obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in objects["claims"]},
            secrets={obj["metadata"]["name"]: obj["data"] for obj in objects["secrets"]},
            stored=await self._stored(),
        )

    async def _objects_to_keep(self) -> dict[str, Objects]:
        secrets = (await self.kube.list(SECRETS, _NAMESPACE))[0]
        return {
            "networks": (await self.kube.list(NETWORKS))[0],
            "claims": (await self.kube.list(PERSISTENT_VOLUME_CLAIMS, _NAMESPACE))[0],
            "secrets": [obj for obj in secrets if obj["metadata"]["name"] in _KEPT_SECRETS],
        }

    async def _lost(self, present: dict[str, Objects]) -> list[str]:
        claims = {obj["metadata"]["uid"] for obj in present["claims"]}
        secrets = {obj["metadata"]["name"]: obj["data"] for obj in present["secrets"]}
        networks = {obj["metadata"]["name"] for obj in present["networks"]}
        lost = [f"Network {name}" for name in self.kept.accounts.keys() - networks]
        lost += [f"volume {name}" for name, uid in self.kept.claims.items() if uid not in claims]
        lost += [f"Secret {name}" for name, data in self.kept.secrets.items() if secrets.get(name) != data]
        lost += [f"Secret {name}" for name in _KEPT_SECRETS if name not in self.kept.secrets]
        definition = await self.kube.find(CUSTOM_RESOURCE_DEFINITIONS, f"networks.{names.GROUP}")
        return lost + ([] if definition is not None else ["the CustomResourceDefinitions"])

    async def _same_keys(self) -> bool:
        for name, account in self.kept.accounts.items():
            network = await self.observer.network(name)
            if network["status"]["account"] != account:
                raise CheckFailed(f"Network {name} has another account")
            await self.observer.stored_account(account)
        for namespace, policy in _POLICIES:
            status = (await self.observer.policy(namespace, policy))["status"]
            if (status["key"], status["keyVersion"]) != self.kept.keys[policy]:
                raise CheckFailed(f"Policy {policy} has another key")
        return True

    async def _stored(self) -> int:
        """How many messages the example's Stream holds, as its status says."""
        stream = await self.kube.get(STREAMS, "readings", "factory")
        return sum(int(location.get("messages") or 0) for location in stream["status"]["locations"])

    @property
    def _old_credentials(self) -> Path:
        return self.platform.folder / "old.creds"

    async def _keep_credentials(self) -> None:
        async with credentials_of(self.platform, "foo", "factory", "sensor") as creds:
            shutil.copy(creds, self._old_credentials)

    async def _old_credentials_work(self) -> None:
        complaints: list[str] = []
        async with connection(self.platform, self._old_credentials, complaints) as client:
            await client.publish("sensor.old", b'{"number": 0}')
            await client.flush()
        if complaints:
            raise CheckFailed(f"NATS said of the old credentials: {complaints}")


async def _more(heard: list[int], than: int) -> bool:
    return len(heard) > than
