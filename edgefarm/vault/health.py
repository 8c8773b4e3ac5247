"""What a Vault server says about itself to anybody, without a login."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefarm.vault.client import Vault
from edgefarm.vault.transport import Operation

_SEAL_STATUS: Final = Operation("read the seal status", "GET")


@dataclass(frozen=True)
class SealStatus:
    """Whether the server has been initialised, and whether it has the key to its data."""

    initialized: bool
    sealed: bool
    version: str


def seal_status(vault: Vault) -> SealStatus:
    """Ask a server, which answers in every state. Raises VaultUnavailable, and VaultRefused when it is no Vault.

    https://openbao.org/api-docs/system/seal-status/
    """
    answer = vault.transport.send(_SEAL_STATUS, "sys/seal-status") or {}
    return SealStatus(
        initialized=answer.get("initialized") is True,
        sealed=answer.get("sealed") is not False,
        version=str(answer.get("version") or ""),
    )
