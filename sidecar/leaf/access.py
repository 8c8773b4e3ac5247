"""The access document of a leaf: what the reconciler tells it beyond what a pod is told. Pure; the layout is in
docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from edgefarm.errors import InvalidResource
from sidecar.access import AccessDocument, Signer, text_member

_MOST_BYTES: Final = 2**63 - 1


@dataclass(frozen=True)
class ServerFacts:
    """What nats-server must be told about operator and system account, and how much it may store, in bytes."""

    operator_jwt: str
    system_account_jwt: str
    file_storage: int
    memory_storage: int


@dataclass(frozen=True, kw_only=True)
class LeafAccess(AccessDocument):
    """Two users instead of one (`system` signs the second), and the server's own facts."""

    system: Signer
    server: ServerFacts

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> LeafAccess:
        """Read the document; raise InvalidResource with the member that is wrong."""
        common = AccessDocument.parse(document)
        system, server = _object(document, "system"), _object(document, "server")
        return cls(
            **{field.name: getattr(common, field.name) for field in fields(common)},
            system=Signer.read(system, "system."),
            server=ServerFacts(
                operator_jwt=text_member(server, "operatorJwt", "server."),
                system_account_jwt=text_member(server, "systemAccountJwt", "server."),
                file_storage=_size(server, "fileStorage"),
                memory_storage=_size(server, "memoryStorage"),
            ),
        )

    def document(self) -> dict[str, Any]:
        """The document again, as it is persisted beside the credentials."""
        return {
            **super().document(),
            "system": self.system.members(),
            "server": {
                "operatorJwt": self.server.operator_jwt,
                "systemAccountJwt": self.server.system_account_jwt,
                "fileStorage": self.server.file_storage,
                "memoryStorage": self.server.memory_storage,
            },
        }


def _object(document: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    value = document.get(member)
    if not isinstance(value, dict):
        raise InvalidResource(member, "must be an object: a leaf needs the access document of an EdgeNetwork")
    return value


def _size(document: Mapping[str, Any], member: str) -> int:
    value = document.get(member)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_BYTES:
        raise InvalidResource(f"server.{member}", "must be a number of bytes")
    return value
