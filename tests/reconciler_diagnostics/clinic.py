"""A network that works, ways to change it behind the reconciler's back, and the findings about it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from edgefarm import names
from edgefarm.findings import Finding, Status
from edgefarm.vault import Vault
from reconciler.context import Context
from reconciler.diagnostics.service import DiagnosticsPage
from reconciler.ports import EDGE_NETWORK, NETWORK, NODE, POD, POLICY, SERVICE_ACCOUNT, Kind, Object
from tests.natskit import eventually
from tests.reconciler.world import Reconciler, World

NET: Final = "plant"
FACTORY: Final = "factory"
OFFICE: Final = "office"
NODE_NAME: Final = "edge-1"
ROLE: Final = names.grant_role(NET, FACTORY, "sensor")
DOCUMENT: Final = names.access_document(NET, FACTORY, "sensor")
_CONTROLLER: Final = names.CONTROLLER_NAMESPACE


class Clinic:
    """`ask` goes the way of a request; `mend` is one pass of a reconciler that has forgotten everything."""

    def __init__(self, reconciler: Reconciler, token: Path) -> None:
        self.reconciler = reconciler
        self.leading = True
        settings = dataclasses.replace(reconciler.context.settings, vault_token_file=token)
        self.context: Context = dataclasses.replace(reconciler.context, settings=settings)
        log: structlog.stdlib.BoundLogger = structlog.get_logger()
        self.page = DiagnosticsPage(self.context, lambda: self.leading, log)

    @property
    def world(self) -> World:
        return self.reconciler.world

    @property
    def admin(self) -> Vault:
        return self.world.admin

    async def open(self) -> None:
        """Make the network with two Policies, and service accounts for pods that have none."""
        for namespace, account in ((_CONTROLLER, "default"), (OFFICE, "sensor"), (FACTORY, "stranger")):
            await self.make(SERVICE_ACCOUNT, namespace, account, {})
        await self.make(NETWORK, _CONTROLLER, NET, {"namespaces": [FACTORY]})
        await self.make(POLICY, FACTORY, "sensor", {"allowpub": ["sensor.>"]})
        await self.make(POLICY, FACTORY, "viewer", {"allowsub": ["sensor.>"]})
        await self.mend()

    async def ask(self, **query: str) -> list[Finding]:
        """The findings, as the page tells them."""
        page = await self.page.answer(query)
        assert page.status == 200, page.body
        return [Finding.parse(each) for each in json.loads(page.body)["findings"]]

    async def wrong(self, **query: str) -> set[str]:
        """Codes of what is wrong or doubtful."""
        bad = (Status.ERROR, Status.WARNING)
        return {finding.code for finding in await self.ask(**query) if finding.status in bad}

    async def mend(self) -> None:
        """Have everything put in order again."""
        self.reconciler.restart()
        await self.reconciler.caught_up()
        self.reconciler.woken.clear()
        await self.reconciler.once("network", _CONTROLLER, NET)
        await self.reconciler.converge()

    async def make(
        self, kind: Kind, namespace: str | None, name: str, spec: Mapping[str, Any], **metadata: Any
    ) -> None:
        """Create an object; a pod is waited for until the informer has it."""
        where = {"namespace": namespace} if namespace else {}
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, **where, **metadata},
            "spec": dict(spec),
        }
        await self.reconciler.kube.create(kind, body)

    @contextlib.asynccontextmanager
    async def having(
        self, kind: Kind, namespace: str | None, name: str, spec: Mapping[str, Any], **metadata: Any
    ) -> AsyncIterator[None]:
        """An object for a while; the controllers are told of it, and of its end."""
        await self.make(kind, namespace, name, spec, **metadata)
        await self.reconciler.converge()
        try:
            yield
        finally:
            await self.reconciler.kube.delete(kind, namespace, name)
            await self.reconciler.converge()

    @contextlib.asynccontextmanager
    async def having_pod(self, name: str, pod: Object) -> AsyncIterator[None]:
        """A labelled pod for a while, as the informers see it."""
        await self.reconciler.kube.create(POD, pod)
        store = self.context.store(POD, labels=names.LABEL_NETWORK)
        namespace = pod["metadata"]["namespace"]
        try:
            await eventually(lambda: store.get(namespace, name) is not None, f"pod {name} seen")
            yield
        finally:
            await self.reconciler.kube.delete(POD, namespace, name)
            await eventually(lambda: store.get(namespace, name) is None, f"pod {name} gone")

    @contextlib.asynccontextmanager
    async def edge(self, name: str) -> AsyncIterator[None]:
        """A node of the network, whose leaf is nowhere; each EdgeNetwork needs a name of its own."""
        await self.make(NODE, None, NODE_NAME, {}, labels={"hall": "yes"})
        try:
            async with self.having(EDGE_NETWORK, _CONTROLLER, name, {"network": NET, "nodeSelector": {"hall": "yes"}}):
                await self.reconciler.see_leafs()
                await self.reconciler.converge()
                yield
        finally:
            await self.reconciler.kube.delete(NODE, None, NODE_NAME)
            await self.reconciler.converge()


def labelled_pod(
    name: str,
    *,
    namespace: str = FACTORY,
    account: str = "sensor",
    network: str = NET,
    audience: str = names.DEFAULT_AUDIENCE,
    annotations: Mapping[str, str] | None = None,
    sidecar: bool = True,
) -> Object:
    """A pod as the webhook leaves it, as far as the reconciler looks at it."""
    token = {"serviceAccountToken": {"path": "token", "audience": audience}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.LABEL_NETWORK: network},
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "app:1"}],
            "initContainers": [{"name": names.SIDECAR_CONTAINER, "image": "sidecar:1"}] if sidecar else [],
            "volumes": [{"name": names.VOLUME_TOKEN, "projected": {"sources": [token]}}] if sidecar else [],
        },
    }
