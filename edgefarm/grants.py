"""Vault policy texts of grants: what one service account may do in Vault. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Mounts(Protocol):
    """The part of the Vault settings that policies are about."""

    @property
    def transit_mount(self) -> str: ...

    @property
    def kv_mount(self) -> str: ...


def grant_policy(mounts: Mounts, transit_key: str, document_path: str, *, also: Sequence[str] = ()) -> str:
    """Vault policy that allows signing with one key (and those of `also`) and reading one access document.

    The text is the same for the same arguments, so comparing it with what Vault holds tells whether to write. Vault
    lets the reconciler write only texts of this form: see `reconciler.controller_grant`.
    """
    rules = [(f"{mounts.transit_mount}/sign/{key}", "update") for key in (transit_key, *also)]
    rules.append((f"{mounts.kv_mount}/data/{document_path}", "read"))
    return "".join(f'path "{path}" {{\n  capabilities = ["{capability}"]\n}}\n' for path, capability in rules)


def grant_policy_start(transit_mount: str, key_family: str) -> str:
    """What the policy of every grant begins with whose key is of this family (see `names.GRANT_KEY_FAMILIES`)."""
    return f'path "{transit_mount}/sign/{key_family}.'
