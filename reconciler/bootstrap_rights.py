"""What the bootstrap needs in Vault, and nothing else: the rights of whoever runs it. Pure."""

from __future__ import annotations

from typing import Final

from edgefarm import names
from edgefarm.vault import VaultSettings

#: The keys that the bootstrap makes.
_KEYS: Final = (
    names.OPERATOR_KEY,
    *names.OPERATOR_SIGNING_KEYS,
    names.SYSTEM_ACCOUNT_KEY,
    names.SYSTEM_CONTROLLER_KEY,
    names.SYSTEM_LEAF_KEY,
)
_MAKE: Final = ("create", "read", "update")


def bootstrap_rights(settings: VaultSettings) -> dict[str, tuple[str, ...]]:
    """Capabilities by path, for the first run of `reconciler.bootstrap` and for its repetition.

    Enabling an auth method is a request for which Vault wants `sudo` as well:
    https://openbao.org/docs/concepts/policies/#root-protected-api-endpoints
    """
    transit, kv, auth = settings.transit_mount, settings.kv_mount, settings.auth_mount
    return {
        "sys/mounts": ("read",),
        f"sys/mounts/{transit}": ("create", "update"),
        f"sys/mounts/{kv}": ("create", "update"),
        "sys/auth": ("read",),
        f"sys/auth/{auth}": ("create", "update", "sudo"),
        f"auth/{auth}/config": _MAKE,
        f"auth/{auth}/role/{names.CONTROLLER_ROLE}": _MAKE,
        f"sys/policies/acl/{names.CONTROLLER_ROLE}": _MAKE,
        **{f"{transit}/keys/{key}": _MAKE for key in _KEYS},
        # The operator's JWT is signed by the operator, that of the system account by the first signing key.
        **{f"{transit}/sign/{key}": ("update",) for key in (names.OPERATOR_KEY, names.OPERATOR_SIGNING_KEYS[0])},
        f"{kv}/config": ("read",),
        f"{kv}/data/{names.OPERATOR_DOCUMENT}": ("create", "read"),
    }
