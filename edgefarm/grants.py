"""Vault policy texts of grants: what one service account may do in Vault. Pure."""

from __future__ import annotations

from typing import Protocol


class Mounts(Protocol):
    """The part of the Vault settings that policies are about."""

    @property
    def transit_mount(self) -> str: ...

    @property
    def kv_mount(self) -> str: ...


def grant_policy(mounts: Mounts, transit_key: str, document_path: str) -> str:
    """Vault policy that allows signing with one key and reading one access document, and nothing else.

    The text is the same for the same arguments, so comparing it with what Vault holds tells whether to write. Vault
    lets the reconciler write only texts of this form: see `reconciler.controller_grant`.
    """
    family, _, rest = transit_key.partition(".")
    return (
        f'{grant_policy_start(mounts.transit_mount, family)}{rest}" {{\n'
        '  capabilities = ["update"]\n'
        "}\n"
        f'path "{mounts.kv_mount}/data/{document_path}" {{\n'
        '  capabilities = ["read"]\n'
        "}\n"
    )


def grant_policy_start(transit_mount: str, key_family: str) -> str:
    """What the policy of every grant begins with whose key is of this family (see `names.GRANT_KEY_FAMILIES`)."""
    return f'path "{transit_mount}/sign/{key_family}.'
