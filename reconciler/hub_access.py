"""Vault and the hub as an accepted configuration names them: for the controller of NATS, before it is in force.

Everybody else uses `reconciler.connections`, which begins when the servers are ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from edgefarm import names
from edgefarm.errors import EdgefarmError, NatsUnavailable, VaultUnavailable
from edgefarm.vault import Vault
from reconciler.adapters.nats import SystemClient
from reconciler.configuration import Configuration, NatsConfiguration, VaultConfiguration
from reconciler.ports import NatsServers
from reconciler.users import system_user
from reconciler.vault_session import VaultSession


class HubAccess:
    """Implements `reconciler.controllers.servers.nats.Hub`."""

    def __init__(
        self, vault_token_file: Path, *, clock: Callable[[], datetime], log: structlog.stdlib.BoundLogger
    ) -> None:
        self._vault_token_file = vault_token_file
        self._clock = clock
        self._log = log
        self._followed: tuple[VaultConfiguration, NatsConfiguration] | None = None
        self._vault: VaultSession | None = None
        self._system: SystemClient | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, configuration: Configuration) -> None:
        """Use these servers from now on; those of before are left."""
        followed = (configuration.vault, configuration.nats)
        if self._followed == followed:
            return
        self._followed = followed
        self._retire()
        self._vault = vault = VaultSession(Vault(configuration.vault.server), self._vault_token_file)

        async def user() -> tuple[str, str]:
            return await system_user(vault, self._clock())

        self._system = SystemClient(configuration.nats.urls, user, ca_bundle=configuration.nats.ca_bundle)

    async def operator(self) -> Mapping[str, Any] | None:
        """The facts of the operator that Vault holds; None while nobody has set it up."""
        if self._vault is None:
            raise VaultUnavailable("Vault is not known yet.")
        return await self._vault.call(Vault.read_document, names.OPERATOR_DOCUMENT)

    @property
    def servers(self) -> NatsServers:
        """The hub's servers."""
        if self._system is None:
            raise NatsUnavailable("NATS is not known yet.")
        return self._system

    async def close(self) -> None:
        """Close the connections; what is followed next opens new ones."""
        self._retire()
        self._followed = self._vault = self._system = None
        await asyncio.gather(*self._closing)

    def _retire(self) -> None:
        for client in (self._system, self._vault):
            if client is not None:
                task = asyncio.get_running_loop().create_task(self._close_quietly(client))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def _close_quietly(self, client: VaultSession | SystemClient) -> None:
        try:
            await client.close()
        except (EdgefarmError, OSError) as error:
            self._log.warning("a connection could not be closed in order", reason=str(error))
