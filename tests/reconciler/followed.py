"""Kubernetes as a reconciler's informers see it, which remembers every change that their stores have taken in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from reconciler.adapters.kube import KubeClient
from reconciler.ports import Kind, Object, WatchEvent

#: Kind, whether only in the controller namespace, and a label selector.
Followed = tuple[Kind, bool, str]


class FollowedKube:
    """The real client; of the kinds in `sources` it keeps the versions of the changes that were worked off."""

    def __init__(self, kube: KubeClient, sources: Collection[Followed]) -> None:
        self._kube = kube
        self._sources = sources
        self._taken_in: set[int] = set()

    def has_all(self, since: str, until: str) -> bool:
        """Whether the stores have every change of the cluster after one version up to another.

        Versions are numbers without gaps, in localcluster as in etcd. A change of a kind that nobody follows is never
        taken in.
        """
        return bool(since) and self._taken_in.issuperset(range(int(since) + 1, int(until) + 1))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        return await self._kube.list(kind, namespace, labels=labels, fields=fields)

    async def watch(
        self, kind: Kind, namespace: str | None, resource_version: str, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        followed = (kind, namespace is not None, labels) in self._sources
        watch = self._kube.watch(kind, namespace, resource_version, labels=labels, fields=fields)
        async with aclosing(watch) as events:
            async for event in events:
                yield event  # comes back when the store has it
                if followed and event.type != "BOOKMARK":
                    self._taken_in.add(int(event.object["metadata"]["resourceVersion"]))
