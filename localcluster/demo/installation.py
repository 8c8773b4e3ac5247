"""What demos look at: a running installation of the product, however it was installed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from edgefarm.vault import Vault
from localcluster.client import Client
from localcluster.kubernetes import ApiServer
from localcluster.platform import Progress


class Installation(Protocol):
    """An async context manager; what it says of servers holds once `start` has returned."""

    @property
    def folder(self) -> Path: ...
    @property
    def api(self) -> ApiServer: ...
    @property
    def kube(self) -> Client: ...
    @property
    def vault(self) -> Vault:
        """Logged in with rights to look at keys, documents, grants, and to sign as the system account."""
        ...

    @property
    def ca_bundle(self) -> str:
        """PEM text of the authorities of Vault and NATS."""
        ...

    @property
    def vault_address(self) -> str: ...
    @property
    def nats_url(self) -> str: ...
    @property
    def nats_monitor(self) -> str: ...

    async def start(self, progress: Progress | None = None) -> None: ...
    async def token(self, account: str, namespace: str, *, audience: str | None, seconds: int = 3600) -> str: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...
