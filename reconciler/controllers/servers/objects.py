"""Reads and writes the objects of one server that the reconciler runs, and its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import Refused
from reconciler import certs
from reconciler.context import Context, Key, Mapper, Watch
from reconciler.desired.comparison import is_as_desired
from reconciler.desired.owners import owner_reference
from reconciler.desired.servers import authority, workload
from reconciler.desired.servers.workload import ServerSpec
from reconciler.ports import (
    CONFIGMAP,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    Object,
)
from reconciler.status import merge_patch

_OWNER: Final = f"metadata.name={names.CONTROLLER_SERVICE_ACCOUNT}"
#: What a server consists of, in the order in which it is taken down.
_KINDS: Final = (STATEFUL_SET, POD_DISRUPTION_BUDGET, SERVICE, CONFIGMAP)


class NameTaken(Refused):
    """There is an object of a server's name that is not ours."""


@dataclass(frozen=True)
class Certificate:
    """A server's certificate as it is now: by what others verify it (PEM), and when to look at it again."""

    authorities: str
    certificate: str
    look_again: datetime


class ServerObjects:
    """The objects of one server in the controller namespace. Every method may raise Conflict, KubernetesUnavailable,
    KubernetesRefused, and NameTaken where an object of somebody else is in the way."""

    def __init__(self, context: Context, server: str) -> None:
        self._context = context
        self._server = server
        self._namespace = context.settings.namespace
        self._labels = f"{names.LABEL_SERVER}={server}"

    def watches(self, key: Key) -> list[Watch]:
        """Everything whose change has the server looked at again."""
        kinds = (*_KINDS, SECRET, POD)
        watches = [Watch(kind, waking(key), namespace=self._namespace, labels=self._labels) for kind in kinds]
        named = (names.SERVERS_CA_SECRET, names.server_tls_secret(self._server))
        return [
            *watches,
            *(Watch(SECRET, waking(key), namespace=self._namespace, fields=f"metadata.name={name}") for name in named),
            watch_owner(self._namespace, waking(key)),
        ]

    def owners(self) -> tuple[Object, ...]:
        """Owner references of what goes with the release."""
        return owner_references(self._context)

    def pods(self) -> Sequence[Object]:
        """The server's pods."""
        return self._context.store(POD, namespace=self._namespace, labels=self._labels).list()

    def found(self, kind: Kind, name: str = "") -> Object | None:
        """An object of the server as the informer has seen it last, by default the one of the server's name."""
        return self._context.store(kind, namespace=self._namespace, labels=self._labels).get(
            self._namespace, name or self._server
        )

    async def ensure(self, kind: Kind, wanted: Object) -> Object:
        """Make the object, or mend what differs; the object as it is afterwards."""
        name = wanted["metadata"]["name"]
        # What the informer does not show is asked for: it may be too new, or have lost its labels.
        found = self.found(kind, name) or await self._context.kube.get(kind, self._namespace, name)
        return await ensure(self._context, kind, found, wanted)

    async def ensure_certificate(self, spec: ServerSpec, service: Mapping[str, Any]) -> Certificate:
        """Have an authority and the server's certificate; they are read afresh, so that none is made twice."""
        kube, context = self._context.kube, self._context
        owners = () if spec.deployment.keep_data else spec.owners
        tls_name, settings = names.server_tls_secret(self._server), authority.CERTIFICATES
        held = await kube.get(SECRET, self._namespace, names.SERVERS_CA_SECRET)
        served = await kube.get(SECRET, self._namespace, tls_name)
        now = context.clock()
        root = certs.plan_authority(certs.read_bundle(_data(held), _data(served)), now=now, settings=settings)
        await ensure(
            context, SECRET, held, authority.secret(names.SERVERS_CA_SECRET, self._namespace, root.ca_secret, owners)
        )
        plan = certs.plan_server(
            certs.read_bundle(None, _data(served)).server,
            root.bundle,
            now=now,
            names=authority.certificate_names(self._server, self._namespace, spec.deployment, service),
            settings=settings,
        )
        await ensure(context, SECRET, served, authority.secret(tls_name, self._namespace, plan.tls_secret, owners))
        for changes in (root.changes, plan.changes):
            if changes:
                context.log.info("certificates of servers changed", server=self._server, changes=list(changes))
        assert plan.bundle.server is not None
        return Certificate(
            authorities=plan.ca_bundle.decode(),
            certificate=plan.bundle.server.certificate.decode(),
            look_again=min(root.look_again_at, plan.look_again_at),
        )

    async def remove(self) -> None:
        """Take the server down; its volumes and the Secrets with keys stay, the certificate goes."""
        for kind in _KINDS:
            found = self._context.store(kind, namespace=self._namespace, labels=self._labels).list()
            for obj in filter(is_ours, found):
                await self._delete(kind, obj)
        served = await self._context.kube.get(SECRET, self._namespace, names.server_tls_secret(self._server))
        if served is not None and is_ours(served):
            await self._delete(SECRET, served)

    async def _delete(self, kind: Kind, obj: Object) -> None:
        metadata = obj["metadata"]
        await self._context.kube.delete(kind, self._namespace, metadata["name"], uid=metadata["uid"])
        self._context.log.info("removed", kind=kind.kind, name=metadata["name"])


async def ensure(context: Context, kind: Kind, found: Object | None, wanted: Object) -> Object:
    """Make `wanted`, or mend what differs from it in `found`; the object as it is afterwards. What others add stays,
    except in `data`."""
    if found is None:
        return await context.kube.create(kind, wanted)
    metadata = found["metadata"]
    if not is_ours(found):
        raise NameTaken(
            f"the {kind.kind} {metadata['name']!r} in namespace {metadata['namespace']!r} is not ours and is left "
            "alone: delete or rename it"
        )
    wanted = workload.changeable(kind, wanted)
    if is_as_desired(found, wanted) and (found.get("data") or {}) == wanted.get("data", {}):
        return found
    patch: Object = {
        member: merge_patch(
            {name: value for name, value in found.get(member, {}).items() if _spoken(member, name, wanted)},
            wanted[member],
        )
        for member in ("spec", "data")
        if member in wanted
    }
    patch["metadata"] = {
        name: wanted["metadata"][name]
        for name in ("labels", "annotations", "ownerReferences")
        if name in wanted["metadata"]
    } | {"resourceVersion": metadata["resourceVersion"]}
    return await context.kube.patch(kind, metadata["namespace"], metadata["name"], patch)


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Whether we have made the object, even if somebody took one of its labels off."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    owned = any(
        owner.get("name") == names.CONTROLLER_SERVICE_ACCOUNT for owner in metadata.get("ownerReferences") or ()
    )
    return owned or labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY


def owner_references(context: Context) -> tuple[Object, ...]:
    """References to the ServiceAccount that only the chart makes and removes; none where there is none."""
    namespace = context.settings.namespace
    account = context.store(SERVICE_ACCOUNT, namespace=namespace, fields=_OWNER).get(
        namespace, names.CONTROLLER_SERVICE_ACCOUNT
    )
    if account is None:
        return ()
    return (owner_reference(SERVICE_ACCOUNT, names.CONTROLLER_SERVICE_ACCOUNT, account["metadata"]["uid"]),)


def watch_owner(namespace: str, mapper: Mapper) -> Watch:
    """The ServiceAccount that owns the servers."""
    return Watch(SERVICE_ACCOUNT, mapper, namespace=namespace, fields=_OWNER)


def waking(key: Key) -> Mapper:
    """Any change has this root looked at."""

    def mapper(old: Object | None, new: Object | None) -> Iterable[Key]:
        return (key,)

    return mapper


def _spoken(member: str, name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a member of the present object is ours to change: all `data`, and of `spec` what is wanted."""
    return member == "data" or name in wanted[member]


def _data(secret: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if secret is None else secret.get("data")
