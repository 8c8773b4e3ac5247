"""The recovery keys of an OpenBao that unseals itself, and how its replicas are.

https://openbao.org/api-docs/system/rotate/ and https://openbao.org/api-docs/system/storage/raftautopilot/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from edgefarm.errors import VaultRefused
from edgefarm.vault.client import Vault
from edgefarm.vault.transport import Operation

_READ_STATUS: Final = Operation("read rotation of recovery keys", "GET")
_BEGIN: Final = Operation("make recovery keys", "POST", write=True)
_CANCEL: Final = Operation("cancel rotation of recovery keys", "DELETE", write=True)
_VERIFY: Final = Operation("verify recovery keys", "POST", write=True)
_READ_RAFT: Final = Operation("read state of replicas", "GET")
_ROTATION: Final = "sys/rotate/recovery/init"
_VERIFICATION: Final = "sys/rotate/recovery/verify"


@dataclass(frozen=True)
class RecoveryStatus:
    """`in_effect`: there are recovery keys. `pending`: others were made, and wait to be verified."""

    in_effect: bool
    pending: bool
    #: What a verification has to name; it changes with every failed one.
    nonce: str = field(default="", repr=False)


class RecoveryKeys:
    """Makes the first recovery key: one share, which takes effect only when it was shown again.

    Until then it can be cancelled and made anew, so that a key that was lost on its way does no harm.
    """

    def __init__(self, vault: Vault) -> None:
        self._transport = vault.transport

    def status(self) -> RecoveryStatus:
        """How things stand."""
        rotation = self._transport.read(_READ_STATUS, _ROTATION) or {}
        return RecoveryStatus(
            in_effect=int(rotation.get("required") or 0) > 0,
            pending=bool(rotation.get("started")),
            nonce=str(rotation.get("verification_nonce") or ""),
        )

    def begin(self) -> str:
        """A new recovery key (base64), not in effect yet. VaultRefused while one is pending."""
        body: dict[str, Any] = {"secret_shares": 1, "secret_threshold": 1, "require_verification": True}
        answer = self._transport.read(_BEGIN, _ROTATION, body) or {}
        keys = answer.get("keys_base64")
        if not (isinstance(keys, list) and len(keys) == 1):
            raise VaultRefused("OpenBao made no recovery key: it has one already, or its answer cannot be read")
        return str(keys[0])

    def cancel(self) -> None:
        """Forget the pending key."""
        self._transport.send(_CANCEL, _ROTATION)

    def verify(self, key: str, nonce: str) -> None:
        """Put the pending key into effect. VaultRefused (400) when `key` is another one."""
        self._transport.send(_VERIFY, _VERIFICATION, {"key": key, "nonce": nonce})


@dataclass(frozen=True)
class RaftState:
    """`leader`: name of the active replica. `spare`: so many may fail now without that anything is lost or stops; one
    that has joined counts only when it has caught up and been well for a while."""

    leader: str
    spare: int


def raft_state(vault: Vault) -> RaftState:
    """How the replicas are, as the active one sees it."""
    state = vault.transport.read(_READ_RAFT, "sys/storage/raft/autopilot/state") or {}
    return RaftState(leader=str(state.get("leader") or ""), spare=int(state.get("failure_tolerance") or 0))
