"""Ports that count a reconciler's outside calls and can break them; behind them are the real clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from edgefarm.errors import NatsUnavailable, VaultUnavailable
from edgefarm.vault import Vault
from reconciler.adapters.kube import KubeClient
from reconciler.adapters.nats import SystemClient
from reconciler.ports import AccountOnServer, JetStream, JetStreamAnswer, Kind, LeafOnHub, Object, WatchEvent
from reconciler.vault_session import VaultSession

P = ParamSpec("P")
T = TypeVar("T")


class Broken(Exception):
    """The process was killed."""


@dataclass
class Gate:
    """All outside calls of a reconciler pass here: they are counted, and the `fail_at`-th one never comes back."""

    calls: Counter[str] = field(default_factory=Counter)
    writes: list[str] = field(default_factory=list)
    fail_at: int | None = None
    nats_down: bool = False
    vault_down: bool = False

    def enter(self, system: str, call: str, *, write: bool) -> None:
        if self.fail_at is not None and self.calls.total() + 1 >= self.fail_at:
            raise Broken(f"killed before {system} {call}")
        self.calls[system] += 1
        if write:
            self.writes.append(f"{system} {call}")
        if system == "vault" and self.vault_down:
            raise VaultUnavailable("Vault does not answer")
        if system == "nats" and self.nats_down:
            raise NatsUnavailable("NATS does not answer")

    def reset(self) -> None:
        self.calls.clear()
        self.writes.clear()


class GatedKube:
    """The real client behind the gate."""

    def __init__(self, kube: KubeClient, gate: Gate) -> None:
        self._kube = kube
        self._gate = gate

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        self._gate.enter("kubernetes", "get", write=False)
        return await self._kube.get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        self._gate.enter("kubernetes", "list", write=False)
        return await self._kube.list(kind, namespace, labels=labels, fields=fields)

    def watch(
        self, kind: Kind, namespace: str | None, resource_version: str, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        return self._kube.watch(kind, namespace, resource_version, labels=labels, fields=fields)

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        self._gate.enter("kubernetes", f"create {kind.kind}", write=True)
        return await self._kube.create(kind, obj)

    async def replace(self, kind: Kind, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        self._gate.enter("kubernetes", f"replace {kind.kind}", write=True)
        return await self._kube.replace(kind, obj, subresource=subresource)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
    ) -> Object:
        self._gate.enter("kubernetes", f"patch {kind.kind} {name}", write=True)
        return await self._kube.patch(kind, namespace, name, patch, subresource=subresource)

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        self._gate.enter("kubernetes", f"delete {kind.kind}", write=True)
        return await self._kube.delete(kind, namespace, name, uid=uid)


class GatedVault:
    """The real session behind the gate."""

    def __init__(self, session: VaultSession, gate: Gate) -> None:
        self._session = session
        self._gate = gate

    async def call(self, function: Callable[Concatenate[Vault, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        verb = function.__name__
        write = verb.startswith(("write", "delete", "create", "rotate"))
        self._gate.enter("vault", f"{verb} {args[0] if args else ''}", write=write)
        return await self._session.call(function, *args, **kwargs)


class GatedNats:
    """The real client behind the gate."""

    def __init__(self, system: SystemClient, gate: Gate) -> None:
        self._system = system
        self._gate = gate

    async def push(self, account_jwt: str) -> None:
        self._gate.enter("nats", "push", write=True)
        await self._system.push(account_jwt)

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        self._gate.enter("nats", "lookup", write=False)
        return await self._system.lookup(account)

    async def delete(self, delete_claims_jwt: str) -> None:
        self._gate.enter("nats", "delete", write=True)
        await self._system.delete(delete_claims_jwt)

    async def leafs(self) -> Sequence[LeafOnHub]:
        self._gate.enter("nats", "leafs", write=False)
        return await self._system.leafs()


class GatedJetStream:
    """The real client of one network behind the gate."""

    def __init__(self, jetstream: JetStream, gate: Gate) -> None:
        self._jetstream = jetstream
        self._gate = gate

    async def request(self, domain: str, api: str, body: Mapping[str, Any] | None = None) -> JetStreamAnswer:
        write = any(part in api for part in ("CREATE", "UPDATE", "DELETE", "PURGE"))
        self._gate.enter("nats", f"{domain} {api}", write=write)
        return await self._jetstream.request(domain, api, body)
