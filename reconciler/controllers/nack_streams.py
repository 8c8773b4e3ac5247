"""Reads and writes NACK's Stream objects; what they say is desired.nack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from edgefarm.errors import Conflict, KubernetesRefused
from reconciler.context import Context, Mapper, Store, Watch
from reconciler.desired import nack
from reconciler.desired.streams_config import Owner
from reconciler.ports import NACK_STREAM, Object

_BY_OWNER: Final = "owner"
_BY_NETWORK: Final = "network"


class NackStreams:
    """NACK's Stream objects in the controller namespace that are ours, as far as the informer has seen them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace

    def watch(self, mapper: Mapper, needed: Callable[[], bool]) -> Watch:
        """Those that carry our label."""
        return Watch(
            NACK_STREAM,
            mapper,
            namespace=self._namespace,
            labels=nack.SELECTOR,
            indexes={_BY_OWNER: _owner, _BY_NETWORK: _network},
            needed=needed,
        )

    @property
    def problem(self) -> str:
        """Why there can be none in this cluster; empty when there can."""
        return self._store.problem

    def of_network(self, network: str) -> Sequence[Object]:
        """All that were made for a network."""
        return self._store.by_index(_BY_NETWORK, network)

    def of_owner(self, owner: Owner) -> Sequence[Object]:
        """All that were made for a Stream object."""
        return self._store.by_index(_BY_OWNER, owner.uid)

    def find(self, owner: Owner, domain: str) -> Object | None:
        """The one that was made for a Stream object in a domain."""
        return next((obj for obj in self.of_owner(owner) if nack.domain_of(obj) == domain), None)

    def get(self, name: str) -> Object | None:
        """The one of that name, whoever it was made for."""
        return self._store.get(self._namespace, name)

    async def create(self, wanted: Mapping[str, Any], network: str) -> bool:
        """False when there is one of that name that is not ours. Conflict when ours had not been seen yet."""
        name = wanted["metadata"]["name"]
        try:
            await self._context.kube.create(NACK_STREAM, wanted)
        except Conflict:
            found = await self._context.kube.get(NACK_STREAM, self._namespace, name)
            if found is not None and not nack.is_ours(found, network):
                return False
            raise
        return True

    async def mend(self, found: Object, wanted: Mapping[str, Any]) -> bool:
        """Whether anything had to be changed."""
        patch = nack.mending_patch(found, wanted)
        if patch:
            await self._context.kube.patch(NACK_STREAM, self._namespace, found["metadata"]["name"], patch)
        return bool(patch)

    async def delete(self, found: Object) -> None:
        """Delete the object; NACK then deletes the stream, as soon as it can reach it."""
        if "deletionTimestamp" not in found["metadata"]:
            metadata = found["metadata"]
            await self._context.kube.delete(NACK_STREAM, self._namespace, metadata["name"], uid=metadata["uid"])

    async def release(self, found: Object) -> None:
        """Delete the object, and have NACK let the stream be."""
        patch = nack.release_patch(found)
        if patch:
            try:
                await self._context.kube.patch(NACK_STREAM, self._namespace, found["metadata"]["name"], patch)
            except KubernetesRefused as error:
                if error.status != 404:
                    raise
                return  # it is gone, and the informer has not told yet
        await self.delete(found)

    @property
    def _store(self) -> Store:
        return self._context.store(NACK_STREAM, namespace=self._namespace)


def _owner(obj: Object) -> Iterable[str]:
    owner = nack.owner_of(obj)
    return () if owner is None else (owner.uid,)


def _network(obj: Object) -> Iterable[str]:
    network = nack.network_of(obj)
    return () if network is None else (network,)
