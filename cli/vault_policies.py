"""Vault policies for people: what an administrator needs to set Vault up, and what `edgefarm creds` needs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgefarm import names
from edgefarm.vault import VaultSettings


def credentials_policy(settings: VaultSettings, transit_key: str) -> str:
    """What a person needs to get credentials of one Policy: read that key's public side, and sign with it."""
    transit = settings.transit_mount
    return _hcl({f"{transit}/keys/{transit_key}": ("read",), f"{transit}/sign/{transit_key}": ("update",)})


def bootstrap_policy(settings: VaultSettings) -> str:
    """What an administrator's token needs for `edgefarm vault bootstrap`, also when it is repeated; nothing else.

    Enabling an auth method is one of the requests for which Vault wants `sudo` as well.
    """
    transit, kv, auth = settings.transit_mount, settings.kv_mount, settings.auth_mount
    keys = (
        names.OPERATOR_KEY,
        *names.OPERATOR_SIGNING_KEYS,
        names.SYSTEM_ACCOUNT_KEY,
        names.SYSTEM_CONTROLLER_KEY,
        names.SYSTEM_LEAF_KEY,
    )
    make = ("create", "read", "update")
    return _hcl(
        {
            "sys/mounts": ("read",),
            f"sys/mounts/{transit}": ("create", "update"),
            f"sys/mounts/{kv}": ("create", "update"),
            "sys/auth": ("read",),
            f"sys/auth/{auth}": ("create", "update", "sudo"),
            f"auth/{auth}/config": make,
            f"auth/{auth}/role/{names.CONTROLLER_ROLE}": make,
            f"sys/policies/acl/{names.CONTROLLER_ROLE}": make,
            **{f"{transit}/keys/{key}": make for key in keys},
            # The operator's JWT is signed by the operator, that of the system account by the first signing key.
            **{f"{transit}/sign/{key}": ("update",) for key in keys[:2]},
            f"{kv}/config": ("read",),
            f"{kv}/data/{names.OPERATOR_DOCUMENT}": ("create", "read"),
        }
    )


def _hcl(rules: Mapping[str, tuple[str, ...]]) -> str:
    return "".join(_rule(path, capabilities) for path, capabilities in rules.items())


def _rule(path: str, capabilities: tuple[str, ...]) -> str:
    # JSON's lists of texts are HCL's.
    return f'path "{path}" {{\n  capabilities = {json.dumps(capabilities)}\n}}\n'
