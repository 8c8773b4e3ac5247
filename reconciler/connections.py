"""The clients of Vault and NATS that the configuration in force asks for; replaced when their section changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog

from edgefarm import names
from edgefarm.errors import EdgefarmError, NatsUnavailable, VaultUnavailable
from edgefarm.vault import Vault
from reconciler.adapters.jetstream import JetStreamPool
from reconciler.adapters.nats import SystemClient
from reconciler.configuration import Configuration
from reconciler.metrics import Metrics
from reconciler.ports import AccountOnServer, JetStream, JetStreamAnswer, LeafListener, LeafOnHub, NatsSystem
from reconciler.users import agents_user, network_user, system_user
from reconciler.vault_session import VaultSession

P = ParamSpec("P")
T = TypeVar("T")


class Connections:
    """Implements `context.VaultCalls` and hands out the NATS client, always those of the configuration in force."""

    def __init__(
        self,
        vault_token_file: Path,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._vault_token_file = vault_token_file
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._configuration: Configuration | None = None
        self._vault: VaultSession | None = None
        self._system: SystemClient | None = None
        self._jetstream: JetStreamPool | None = None
        self._leaf_listener: LeafListener | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def on_leafs(self, listener: LeafListener) -> None:
        """Have `listener` called when leafs come and go; before the first `apply`."""
        self._leaf_listener = listener

    def apply(self, configuration: Configuration) -> None:
        """Use this configuration from now on. Nothing is connected yet; old clients are closed behind the scenes."""
        old, self._configuration = self._configuration, configuration
        vault_changed = old is None or old.vault != configuration.vault
        if vault_changed:
            self._retire(self._vault)
            self._vault = VaultSession(
                Vault(configuration.vault.server, on_request=self._metrics.vault_request), self._vault_token_file
            )
        # The NATS user is signed by Vault, so another Vault means another user.
        if vault_changed or old is None or old.nats != configuration.nats:
            self._retire(self._system)
            self._retire(self._jetstream)
            urls, ca_bundle = configuration.nats.urls, configuration.nats.ca_bundle
            self._system = SystemClient(urls, self._system_user, ca_bundle=ca_bundle, on_leafs=self._leaf_listener)
            self._jetstream = JetStreamPool(urls, self._network_user, ca_bundle=ca_bundle)

    async def call(self, function: Callable[Concatenate[Vault, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(vault, …)` with the logged-in client in a thread."""
        if self._vault is None:
            raise VaultUnavailable(_waiting("Vault"))
        return await self._vault.call(function, *args, **kwargs)

    def nats(self) -> NatsSystem:
        """The hub's system account."""
        if self._system is None:
            raise NatsUnavailable(_waiting("NATS"))
        return _CountedSystem(self._system, self._metrics)

    def jetstream(self, network: str) -> JetStream:
        """The JetStream API of a network's account."""
        if self._jetstream is None:
            raise NatsUnavailable(_waiting("NATS"))
        return _CountedJetStream(self._jetstream.network(network), self._metrics)

    async def agents_user(self) -> tuple[str, str]:
        """JWT and seed of a new user that may speak to all agents. NatsUnavailable while they have no account."""
        return await agents_user(self, self._clock())

    async def close(self) -> None:
        """Close all clients."""
        self._retire(self._jetstream)
        self._retire(self._system)
        self._retire(self._vault)
        await asyncio.gather(*self._closing)

    async def _system_user(self) -> tuple[str, str]:
        return await system_user(self, self._clock())

    async def _network_user(self, network: str) -> tuple[str, str]:
        return await network_user(self, network, self._clock())

    def _retire(self, client: VaultSession | SystemClient | JetStreamPool | None) -> None:
        if client is None:
            return
        task = asyncio.get_running_loop().create_task(self._close_quietly(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_quietly(self, client: VaultSession | SystemClient | JetStreamPool) -> None:
        try:
            await client.close()
        except (EdgefarmError, OSError) as error:
            self._log.warning("a connection could not be closed in order", reason=str(error))


class _CountedSystem:
    """Counts the requests to the system account."""

    def __init__(self, system: SystemClient, metrics: Metrics) -> None:
        self._system = system
        self._metrics = metrics

    async def push(self, account_jwt: str) -> None:
        self._metrics.nats_request("push")
        await self._system.push(account_jwt)

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        self._metrics.nats_request("lookup")
        return await self._system.lookup(account)

    async def delete(self, delete_claims_jwt: str) -> None:
        self._metrics.nats_request("delete")
        await self._system.delete(delete_claims_jwt)

    async def leafs(self) -> Sequence[LeafOnHub]:
        self._metrics.nats_request("leafs")
        return await self._system.leafs()


class _CountedJetStream:
    """Counts the requests to the JetStream API, by their kind."""

    def __init__(self, jetstream: JetStream, metrics: Metrics) -> None:
        self._jetstream = jetstream
        self._metrics = metrics

    async def request(self, domain: str, api: str, body: Mapping[str, Any] | None = None) -> JetStreamAnswer:
        self._metrics.nats_request(".".join(api.split(".")[:2]))
        return await self._jetstream.request(domain, api, body)


def _waiting(what: str) -> str:
    return f"{what} is not known yet: waiting for a valid ConfigMap {names.CONFIGMAP} in the controller namespace."
