"""Keeps what pods need to reach the leaf of their node: a Service and a TLS Secret per network, and one authority."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm import names
from reconciler import certs
from reconciler.concurrency import all_of
from reconciler.context import Context, Mapper, Store, Watch
from reconciler.desired import leaf_service
from reconciler.desired.leafs import LeafEntry
from reconciler.keypairs import decode
from reconciler.ports import SECRET, SERVICE, Kind, Object

_KINDS: Final = (SERVICE, SECRET)


@dataclass(frozen=True)
class FoundEntry:
    """Where pods find the leaf of their node (`entry`), or what stands in the way of that (`problem`). Certificates
    have to be looked at again at `look_again`."""

    entry: LeafEntry | None = None
    problem: str = ""
    look_again: datetime | None = None


class _NameTaken(Exception):
    """There is an object of this name that is not ours."""


class LeafObjects:
    """Services and Secrets of the leafs of all networks, in the controller namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        #: Networks share the authority: one at a time makes or rotates it.
        self._authority = asyncio.Lock()

    async def ensure(self, network: Object) -> FoundEntry:
        """Make what is missing and mend what is different; nothing is written when all is as it shall be.

        May raise Conflict (an object was changed meanwhile), KubernetesUnavailable and KubernetesRefused.
        """
        name = network["metadata"]["name"]
        try:
            service = await self._ensure(
                SERVICE, await self._read(SERVICE, network), leaf_service.wanted_service(network)
            )
            served = await self._read(SECRET, network)
            authority = await self._ensure_authority(served)
            plan = certs.plan_server(
                certs.read_bundle(None, _data(served)).server,
                authority.bundle,
                now=self._context.clock(),
                names=(*names.leaf_hosts(name, self._namespace), *leaf_service.addresses(service)),
                settings=leaf_service.CERTIFICATES,
            )
            await self._ensure(SECRET, served, leaf_service.wanted_secret(network, plan.tls_secret))
        except _NameTaken as taken:
            return FoundEntry(problem=str(taken))
        self._note(plan, network=name)
        urls = leaf_service.entry_urls(service)
        return FoundEntry(
            entry=LeafEntry(urls, plan.ca_bundle.decode()) if urls else None,
            look_again=min(authority.look_again_at, plan.look_again_at),
        )

    def known(self, network: str) -> LeafEntry | None:
        """Where pods find the leaf of their node as far as the informers tell; nothing is made or mended."""
        service, secret = (self._found(kind, names.leaf_service(network)) for kind in _KINDS)
        urls = leaf_service.entry_urls(service) if service is not None else ()
        authority = decode(_data(secret)).get("ca.crt", b"")
        return LeafEntry(urls, authority.decode()) if urls and authority else None

    async def remove(self, network: str) -> None:
        """Delete Service and Secret of a network; absent ones and those of others are fine."""
        found = [(kind, self._found(kind, names.leaf_service(network))) for kind in _KINDS]
        await all_of(
            [
                self._context.kube.delete(kind, self._namespace, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
                for kind, obj in found
                if obj is not None and obj["metadata"]["labels"].get(names.LABEL_OF_NETWORK) == network
            ]
        )

    async def _read(self, kind: Kind, network: Object) -> Object | None:
        """The network's object. _NameTaken when there is one that is not ours.

        What the informer does not show is asked for: ours may be too new or have lost its labels, and a certificate
        that was made a moment ago must not be made again.
        """
        name = names.leaf_service(network["metadata"]["name"])
        found = self._found(kind, name) or await self._context.kube.get(kind, self._namespace, name)
        if found is not None and not leaf_service.is_ours(found, network):
            raise _NameTaken(
                f"the {kind.kind} {name!r} in namespace {self._namespace!r} is not ours and is left alone: delete or "
                "rename it, so that pods can reach the leaf of their node"
            )
        return found

    async def _ensure(self, kind: Kind, found: Object | None, wanted: Object) -> Object:
        """The object as it is afterwards."""
        if found is None:
            return await self._context.kube.create(kind, wanted)
        return await self._patch(kind, found, leaf_service.mending_patch(found, wanted))

    async def _ensure_authority(self, served: Object | None) -> certs.Plan:
        """`served` is a Secret with a certificate: if the authority was lost, what that trusts stays trusted."""
        async with self._authority:
            name = names.LEAF_CA_SECRET
            found = self._found(SECRET, name) or await self._context.kube.get(SECRET, self._namespace, name)
            bundle = certs.read_bundle(_data(found), _data(served))
            plan = certs.plan_authority(bundle, now=self._context.clock(), settings=leaf_service.CERTIFICATES)
            await self._ensure(SECRET, found, leaf_service.authority_secret(self._namespace, plan.ca_secret))
            self._note(plan)
            return plan

    async def _patch(self, kind: Kind, found: Object, patch: Object) -> Object:
        if not patch:
            return found
        metadata = {**patch.get("metadata", {}), "resourceVersion": found["metadata"]["resourceVersion"]}
        return await self._context.kube.patch(
            kind, self._namespace, found["metadata"]["name"], {**patch, "metadata": metadata}
        )

    def _note(self, plan: certs.Plan, **what: str) -> None:
        if plan.changes:
            self._context.log.info("certificates of leafs changed", changes=list(plan.changes), **what)

    def _found(self, kind: Kind, name: str) -> Object | None:
        return self._store(kind).get(self._namespace, name)

    def _store(self, kind: Kind) -> Store:
        return self._context.store(kind, namespace=self._namespace, labels=leaf_service.SELECTOR)


def _data(secret: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if secret is None else secret.get("data")


def watch_leaf_objects(namespace: str, mapper: Mapper) -> list[Watch]:
    """Objects of ours, by their labels; `mapper` is told of the authority's Secret, too."""
    return [Watch(kind, mapper, namespace=namespace, labels=leaf_service.SELECTOR) for kind in _KINDS]
