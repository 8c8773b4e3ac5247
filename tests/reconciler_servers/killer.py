"""Outside calls of a reconciler that may end it: before a call was made, or after, before its answer came."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgefarm.vault import Vault, VaultSettings
from edgefarm.vault.transport import Operation, Transport
from reconciler.adapters.kube import KubeClient
from reconciler.ports import Kind, Object


class Killed(Exception):
    """The process was killed."""


class Killer:
    """Lists the writes of a reconciler, and ends it at the one that it was told, once."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self._lock = threading.Lock()
        self._victim = ("", "")
        self._everywhere = False
        self.ends: set[tuple[str, str]] = set()
        """When ("before" or "after") and at which writes the reconciler was ended."""

    def kill(self, when: str, write: str) -> None:
        """End the reconciler `when` ("before" or "after") it makes the write of this name."""
        self._victim = (when, write)

    @contextlib.contextmanager
    def killing_everywhere(self) -> Iterator[None]:
        """End the reconciler once before and once after each write that it comes to."""
        self._everywhere = True
        try:
            yield
        finally:
            self._everywhere = False

    def before(self, write: str) -> None:
        self._fall("before", write)

    def after(self, write: str) -> None:
        with self._lock:
            self.writes.append(write)
        self._fall("after", write)

    def _fall(self, when: str, write: str) -> None:
        with self._lock:
            if self._victim == (when, write):
                self._victim = ("", "")
            elif not self._everywhere or (when, write) in self.ends:
                return
            self.ends.add((when, write))
        raise Killed(f"{when} {write}")


class KilledKube:
    """The verbs that the controllers of servers use, of the real client."""

    def __init__(self, kube: KubeClient, killer: Killer) -> None:
        self._kube = kube
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        write = f"create {kind.kind} {obj['metadata']['name']}"
        self._killer.before(write)
        made = await self._kube.create(kind, obj)
        self._killer.after(write)
        return made

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
    ) -> Object:
        write = f"patch {kind.kind} {name}"
        self._killer.before(write)
        made = await self._kube.patch(kind, namespace, name, patch, subresource=subresource)
        self._killer.after(write)
        return made

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        write = f"delete {kind.kind} {name}"
        self._killer.before(write)
        done = await self._kube.delete(kind, namespace, name, uid=uid)
        self._killer.after(write)
        return done


class _KilledTransport(Transport):
    def __init__(self, settings: VaultSettings, killer: Killer) -> None:
        super().__init__(settings, None, None)
        self._killer = killer

    def send(self, operation: Operation, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        write = f"{operation.kind} {path}" if operation.write else ""
        if write:
            self._killer.before(write)
        answer = super().send(operation, path, body)
        if write:
            self._killer.after(write)
        return answer


def killed_vault(settings: VaultSettings, killer: Killer) -> Vault:
    """A real client of OpenBao whose writes may end the reconciler."""
    vault = Vault(settings)
    vault.transport.close()
    vault.transport = _KilledTransport(settings, killer)
    return vault
