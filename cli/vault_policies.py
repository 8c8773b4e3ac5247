"""Vault policies for people: what an administrator needs to set Vault up, and what `edgefarm creds` needs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgefarm.vault import VaultSettings
from reconciler.bootstrap_rights import bootstrap_rights


def credentials_policy(settings: VaultSettings, transit_key: str) -> str:
    """What a person needs to get credentials of one Policy: read that key's public side, and sign with it."""
    transit = settings.transit_mount
    return _hcl({f"{transit}/keys/{transit_key}": ("read",), f"{transit}/sign/{transit_key}": ("update",)})


def bootstrap_policy(settings: VaultSettings) -> str:
    """What an administrator's token needs for `edgefarm vault bootstrap`, also when it is repeated; nothing else."""
    return _hcl(bootstrap_rights(settings))


def _hcl(rules: Mapping[str, tuple[str, ...]]) -> str:
    return "".join(_rule(path, capabilities) for path, capabilities in rules.items())


def _rule(path: str, capabilities: tuple[str, ...]) -> str:
    # JSON's lists of texts are HCL's.
    return f'path "{path}" {{\n  capabilities = {json.dumps(capabilities)}\n}}\n'
