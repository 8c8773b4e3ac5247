"""WireGuard keys of devices that cannot make their own (`mesh.keys: controller`): made here, kept in Vault."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.vault import Vault
from reconciler.context import VaultCalls

_MEMBER: Final = "privateKey"


class MeshKeys:
    """Private keys in base64, as in `wg`. They go to the host and to Vault, and nowhere else."""

    def __init__(self, vault: VaultCalls) -> None:
        self._vault = vault
        self._known: dict[str, str] = {}

    async def devices(self) -> frozenset[str]:
        """The devices for which a key was made."""
        paths = await self._vault.call(Vault.list_documents, names.MESH_KEYS_FOLDER)
        return frozenset(path.removeprefix(f"{names.MESH_KEYS_FOLDER}/") for path in paths)

    async def ensure(self, device: str) -> str:
        """The device's key, made when there is none. Raises VaultUnavailable and VaultRefused."""
        if device not in self._known:
            self._known[device] = await self._read(device) or await self._make(device)
        return self._known[device]

    async def delete(self, device: str) -> None:
        """Forget the device's key for good; an absent one is fine."""
        self._known.pop(device, None)
        await self._vault.call(Vault.delete_document, names.mesh_key_document(device))

    async def _read(self, device: str) -> str | None:
        document = await self._vault.call(Vault.read_document, names.mesh_key_document(device))
        return None if document is None else str(document[_MEMBER])

    async def _make(self, device: str) -> str:
        made = _encoded(X25519PrivateKey.generate().private_bytes_raw())
        try:
            await self._vault.call(
                Vault.write_document, names.mesh_key_document(device), {_MEMBER: made}, create_only=True
            )
        except VaultRefused:
            # Another replica, which has lost the lease meanwhile, may have been first: then its key counts.
            other = await self._read(device)
            if other is None:
                raise
            return other
        return made


def public_key(private: str) -> str:
    """The public key that belongs to a private one."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return _encoded(key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
