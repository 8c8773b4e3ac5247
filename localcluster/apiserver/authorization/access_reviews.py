"""Answers to the reviews of authorization.k8s.io: may this one do that, and what may I do."""

from __future__ import annotations

from typing import Any, Final

from localcluster.apiserver.authorization.attributes import Attributes
from localcluster.apiserver.authorization.rbac import Decision, Rbac
from localcluster.apiserver.authorization.rules import Rule
from localcluster.apiserver.calls import Call
from localcluster.apiserver.failures import Cause, bad_request, invalid
from localcluster.apiserver.tokens import User

Json = dict[str, Any]
_RESOURCE_FIELDS: Final = ("group", "version", "resource", "subresource", "namespace", "name")


def review_access(call: Call, body: Json, rbac: Rbac) -> Json:
    """The status of a (Self-, Local-)SubjectAccessReview; ApiError for one that asks nothing."""
    spec = body.get("spec") or {}
    wanted = _attributes(call, spec)
    user = call.user
    if call.resource.kind != "SelfSubjectAccessReview":
        if not spec.get("user") and not spec.get("groups"):
            hint = "at least one of user or group must be specified"
            raise invalid(call.resource, "", [Cause.required("spec.user", hint)])
        user = User(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()))
    if call.resource.namespaced and wanted.namespace != call.namespace:
        raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {call.namespace}")
    return _status(rbac.decide(user, wanted))


def review_rules(call: Call, body: Json, rbac: Rbac) -> Json:
    """The status of a SelfSubjectRulesReview: all that the caller may do in one namespace."""
    namespace = (body.get("spec") or {}).get("namespace")
    if not namespace:
        raise bad_request("no namespace on request")
    rules = rbac.rules_of(call.user, namespace)
    return {
        "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
        "nonResourceRules": [
            {"verbs": sorted(rule.verbs), "nonResourceURLs": sorted(rule.paths)} for rule in rules if rule.paths
        ],
        "incomplete": False,
    }


def _attributes(call: Call, spec: Json) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) is (path is None):
        hint = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(call.resource, "", [Cause.invalid("spec.resourceAttributes", resource, hint)])
    if path is not None:
        return Attributes(path.get("verb") or "", path.get("path") or "")
    assert resource is not None
    fields = {name: resource.get(name) or "" for name in _RESOURCE_FIELDS}
    return Attributes(resource.get("verb") or "", **fields)


def _status(decision: Decision) -> Json:
    return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}


def _resource_rule(rule: Rule) -> Json:
    names = {"resourceNames": sorted(rule.names)} if rule.names else {}
    return {
        "verbs": sorted(rule.verbs),
        "apiGroups": sorted(rule.groups),
        "resources": sorted(rule.resources),
        **names,
    }
