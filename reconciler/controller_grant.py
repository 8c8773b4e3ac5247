"""What the reconciler itself may do in Vault: its Vault policy and its role. Pure; the reasons: docs/security.md."""

from __future__ import annotations

import json
from typing import Any, Final

from edgefarm import names
from edgefarm.grants import grant_policy_start
from edgefarm.vault import Role, VaultSettings, role_parameters

#: Seconds; the reconciler logs in again before. Short, because a batch token cannot be revoked.
CONTROLLER_TOKEN_TTL: Final = 1200

_Rule = dict[str, Any]
_MANAGE: Final = ("create", "delete", "read", "update")
#: Keys of those families that only the administrator may change.
_FIXED_KEYS: Final = (names.SYSTEM_ACCOUNT_KEY, names.SYSTEM_CONTROLLER_KEY, names.SYSTEM_LEAF_KEY)

# Patterns of Vault's parameter rules, which match text only and know no more than "begins", "ends" and "contains".
_ANY_TEXT: Final = "**"
_CONTAINS_COMMA: Final = "*,*"
_CONTAINS_STAR: Final = "***"
#: What the text of a grant's policy never contains, and what wider rights would need: wildcards, escapes, templates, a
#: path into Vault's own administration, and capabilities beyond reading and signing.
_NEVER_IN_GRANTS: Final = (
    _CONTAINS_STAR,
    "*+*",
    "*\\*",
    "*{{*",
    *(f'*"{path}*' for path in ("/", "sys/", "auth/", "identity/", "cubbyhole/")),
    *(f'*"{word}"*' for word in ("sudo", "create", "delete", "list", "patch", "write", "scan", "root")),
)
#: What a grant never needs of our own mounts; `keys/<name>/config` could make a key exportable.
_NEVER_IN_TRANSIT: Final = (
    *("keys/", "export/", "byok-export/", "backup/", "restore"),
    *("sign/operator", "sign/account.", "sign/controller."),
)
_NEVER_IN_KV: Final = (
    *("config", "data/operator", f"data/{names.MESH_KEYS_FOLDER}/"),
    *("delete/", "destroy/", "metadata/", "undelete/"),
)


def controller_role(*, namespace: str, service_account: str, audience: str) -> Role:
    """The role by which the reconciler's own service account logs in."""
    return Role(
        name=names.CONTROLLER_ROLE,
        namespace=namespace,
        service_account=service_account,
        audience=audience,
        policies=(names.CONTROLLER_ROLE,),
        token_ttl=CONTROLLER_TOKEN_TTL,
    )


def controller_policy(settings: VaultSettings) -> str:
    """The Vault policy of the reconciler as JSON text; the same text for the same mounts.

    The most specific path wins in Vault, whatever the order: an exact path before a prefix, a longer prefix before a
    shorter one. See https://openbao.org/docs/concepts/policies/
    """
    rules = {
        **_keys(settings.transit_mount),
        **_documents(settings.kv_mount),
        **_roles(f"auth/{settings.auth_mount}/role"),
        **_policies(settings.transit_mount, settings.kv_mount),
    }
    return json.dumps({"path": rules}, indent=2, sort_keys=True)


def _keys(transit: str) -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {f"{transit}/keys": _rule("list")}
    for family in names.KEY_FAMILIES:
        # No parameter that would make a key exportable, or anything else than ed25519.
        rules[f"{transit}/keys/{family}.*"] = _rule(
            *_MANAGE, allowed_parameters={"type": ["ed25519"], "deletion_allowed": []}
        )
    for key in _FIXED_KEYS:
        rules[f"{transit}/keys/{key}"] = _rule("read")
        rules[f"{transit}/keys/{key}/*"] = _rule("deny")
    for key in (names.OPERATOR_KEY, *names.OPERATOR_SIGNING_KEYS):
        rules[f"{transit}/keys/{key}"] = _rule("read")
    for key in (*names.OPERATOR_SIGNING_KEYS, "controller.*"):
        rules[f"{transit}/sign/{key}"] = _rule("update")
    return rules


def _documents(kv: str) -> dict[str, _Rule]:
    return {
        f"{kv}/data/{names.OPERATOR_DOCUMENT}": _rule("read"),
        f"{kv}/data/{names.ACCESS_FOLDER}/*": _rule("create", "read", "update"),
        f"{kv}/metadata/{names.ACCESS_FOLDER}": _rule("list"),
        f"{kv}/metadata/{names.ACCESS_FOLDER}/*": _rule("delete", "list"),
        # Never "update": a device's key is made once.
        f"{kv}/data/{names.MESH_KEYS_FOLDER}/*": _rule("create", "read"),
        f"{kv}/metadata/{names.MESH_KEYS_FOLDER}": _rule("list"),
        f"{kv}/metadata/{names.MESH_KEYS_FOLDER}/*": _rule("delete", "list"),
    }


def _roles(roles: str) -> dict[str, _Rule]:
    own = names.CONTROLLER_ROLE
    limits: dict[str, list[str]] = {parameter: [] for parameter in role_parameters()}  # [] is "any value"
    limits["audience"] = limits["bound_service_account_names"] = limits["bound_service_account_namespaces"] = [
        _ANY_TEXT
    ]
    limits["token_policies"] = [names.vault_policy("*")]
    limits["token_type"] = ["batch"]
    forbidden = {
        "audience": [""],
        "bound_service_account_names": [_CONTAINS_COMMA, _CONTAINS_STAR],
        "bound_service_account_namespaces": [_CONTAINS_COMMA, _CONTAINS_STAR],
        "token_policies": [_CONTAINS_COMMA],
    }
    return {
        roles: _rule("list"),
        f"{roles}/*": _rule(*_MANAGE, allowed_parameters=limits, denied_parameters=forbidden),
        f"{roles}/{own}": _rule("deny"),
        # The auth method folds role names to lower case, while policies do not: every other spelling of our own role
        # has a first capital letter somewhere. Names of grants have none.
        **{f"{roles}/{own[:index]}{letter.upper()}*": _rule("deny") for index, letter in enumerate(own)},
    }


def _policies(transit: str, kv: str) -> dict[str, _Rule]:
    starts = [f"{grant_policy_start(transit, family)}*" for family in names.GRANT_KEY_FAMILIES]
    forbidden = [
        *_NEVER_IN_GRANTS,
        *(f'*"{transit}/{path}*' for path in _NEVER_IN_TRANSIT),
        *(f'*"{kv}/{path}*' for path in _NEVER_IN_KV),
    ]
    return {
        "sys/policies/acl": _rule("list"),
        f"sys/policies/acl/{names.vault_policy('*')}": _rule(
            *_MANAGE, allowed_parameters={"policy": starts}, denied_parameters={"policy": forbidden}
        ),
    }


def _rule(*capabilities: str, **parameters: dict[str, list[str]]) -> _Rule:
    return {"capabilities": list(capabilities), **parameters}
