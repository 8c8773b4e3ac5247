"""Keeps users from granting what they do not hold, as Kubernetes does when roles and bindings are written."""

from __future__ import annotations

from typing import Any, Final

from localcluster.apiserver.authorization.attributes import Attributes
from localcluster.apiserver.authorization.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    ROLE_BINDINGS,
    ROLES,
    Rbac,
)
from localcluster.apiserver.authorization.rules import EVERYTHING, Rule, uncovered
from localcluster.apiserver.calls import Call
from localcluster.apiserver.failures import forbidden, not_found
from localcluster.apiserver.resources import builtin

Json = dict[str, Any]
_NAMESPACED: Final = frozenset({ROLES, ROLE_BINDINGS})


def check_grant(rbac: Rbac, call: Call, obj: Json, old: Json | None) -> None:
    """Raise ApiError when the caller writes a role or binding that gives more than the caller may give."""
    bucket = call.resource.bucket
    if bucket in (ROLES, CLUSTER_ROLES):
        _check_role(rbac, call, obj, old)
    elif bucket in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
        _check_binding(rbac, call, obj, old)


def _check_role(rbac: Rbac, call: Call, role: Json, old: Json | None) -> None:
    same = old is not None and all(role.get(field) == old.get(field) for field in ("rules", "aggregationRule"))
    if same or _may(rbac, call, "escalate", call.resource.plural, role["metadata"]["name"]):
        return
    rules = [Rule.parse(raw) for raw in role.get("rules") or ()]
    if role.get("aggregationRule") and role["aggregationRule"] != (old or {}).get("aggregationRule"):
        rules += EVERYTHING
    _require_covered(rbac, call, rules)


def _check_binding(rbac: Rbac, call: Call, binding: Json, old: Json | None) -> None:
    if old is not None and binding.get("subjects") == old.get("subjects"):
        return
    reference = binding["roleRef"]
    plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
    if _may(rbac, call, "bind", plural, reference["name"]):
        return
    rules = rbac.role_rules(reference, call.namespace)
    if rules is None:
        raise not_found(builtin(GROUP, plural), reference["name"])
    _require_covered(rbac, call, list(rules))


def _may(rbac: Rbac, call: Call, verb: str, plural: str, name: str) -> bool:
    namespace = call.namespace if call.resource.bucket in _NAMESPACED else ""
    wanted = Attributes(verb, "", GROUP, call.resource.version, plural, "", namespace, name)
    return rbac.decide(call.user, wanted).allowed


def _require_covered(rbac: Rbac, call: Call, rules: list[Rule]) -> None:
    missing = uncovered(rbac.rules_of(call.user, call.namespace), rules)
    if missing:
        groups = " ".join(f'"{group}"' for group in call.user.groups)
        listed = "\n".join(dict.fromkeys(rule.compact() for rule in missing))
        why = f'user "{call.user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held'
        raise forbidden(call.resource, call.name, f"{why}:\n{listed}")
