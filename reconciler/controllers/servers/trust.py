"""Keeps ConfigMap SERVERS_CA: by what pods verify Vault and NATS, and which configuration was accepted."""

from __future__ import annotations

from typing import Final

from edgefarm import names
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.servers.objects import ensure, owner_references, waking, watch_owner
from reconciler.desired.servers.authority import CA_KEY, ca_configmap
from reconciler.ports import CONFIGMAP, Object

_FIELDS: Final = f"metadata.name={names.SERVERS_CA}"


class TrustController:
    """One ConfigMap, whoever runs the servers."""

    name = "trust"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        #: The only root there is.
        self.key = Key(self.name, self._namespace, names.SERVERS_CA)

    def watches(self) -> list[Watch]:
        """The ConfigMap itself and its owner."""
        mapper = waking(self.key)
        return [
            Watch(CONFIGMAP, mapper, namespace=self._namespace, fields=_FIELDS),
            watch_owner(self._namespace, mapper),
        ]

    async def reconcile(self, key: Key) -> Result:
        """Write what differs. What is accepted is remembered before any server is ready, trust is told of when it is
        known."""
        context, accepted = self._context, self._context.servers.accepted
        if accepted is None:
            return Result()
        store = context.store(CONFIGMAP, namespace=self._namespace, fields=_FIELDS)
        found = store.get(self._namespace, names.SERVERS_CA)
        if found is None:
            found = await context.kube.get(CONFIGMAP, self._namespace, names.SERVERS_CA)
        # After a restart with a configuration that is refused, the text of the accepted one is only here.
        memory = {names.ANNOTATION_ACCEPTED: context.servers.accepted_text or _remembered(found)}
        in_force = context.configuration()
        if in_force is not None:
            memory[names.ANNOTATION_READY_SERVERS] = ",".join(sorted(in_force.deployed))
        # Until then nothing may take from pods what they trust: their servers run on while a reconciler starts.
        known = "" if in_force else _authorities(found)
        wanted = ca_configmap(in_force or accepted, self._namespace, memory, owner_references(context), known)
        await ensure(context, CONFIGMAP, found, wanted)
        return Result()


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = TrustController(context)
    return Registration(controller, controller.watches(), always=(controller.key,))


def _remembered(found: Object | None) -> str:
    return str(((found or {}).get("metadata", {}).get("annotations") or {}).get(names.ANNOTATION_ACCEPTED, ""))


def _authorities(found: Object | None) -> str:
    return str(((found or {}).get("data") or {}).get(CA_KEY, ""))
