"""The roles and bindings that every cluster starts with, as far as clients and charts lean on them.

Names and meaning: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]
_GROUP: Final = "rbac.authorization.k8s.io"
_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "delete", "deletecollection", "patch", "update")
_AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-"
_HEALTH: Final = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY: Final = ("/api", "/api/*", "/apis", "/apis/*", *_HEALTH, "/openapi", "/openapi/*")
_ISSUER: Final = ("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks")

#: group -> resources with their subresources, as `view` and `edit` have them.
_WORKLOADS: Final = (
    (
        "apps",
        ("daemonsets", "deployments", "replicasets", "statefulsets"),
    ),
    (
        "apps",
        ("deployments/scale", "replicasets/scale", "statefulsets/scale"),
    ),
    ("batch", ("cronjobs", "jobs")),
    ("networking.k8s.io", ("networkpolicies",)),
    ("policy", ("poddisruptionbudgets",)),
)
_CORE: Final = ("configmaps", "endpoints", "persistentvolumeclaims", "pods", "services")
_SECRET_LIKE: Final = ("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy")
_ACCOUNTS: Final = ("serviceaccounts",)


def default_roles() -> Iterator[Json]:
    """ClusterRoles without kind and apiVersion."""
    yield _role("cluster-admin", _rule("*", "*", "*"), _paths("*", verb="*"))
    yield _role("system:discovery", _paths(*_DISCOVERY))
    yield _role("system:public-info-viewer", _paths(*_HEALTH))
    yield _role("system:service-account-issuer-discovery", _paths(*_ISSUER))
    yield _role(
        "system:basic-user",
        _rule("authorization.k8s.io", ("selfsubjectaccessreviews", "selfsubjectrulesreviews"), "create"),
        _rule("authentication.k8s.io", "selfsubjectreviews", "create"),
    )
    yield _role(
        "system:auth-delegator",
        _rule("authentication.k8s.io", "tokenreviews", "create"),
        _rule("authorization.k8s.io", "subjectaccessreviews", "create"),
    )
    yield from _user_roles()


def default_bindings() -> Iterator[Json]:
    """ClusterRoleBindings without kind and apiVersion."""
    for role, *groups in (
        ("cluster-admin", "system:masters"),
        ("system:discovery", "system:authenticated"),
        ("system:basic-user", "system:authenticated"),
        ("system:public-info-viewer", "system:authenticated", "system:unauthenticated"),
        ("system:service-account-issuer-discovery", "system:serviceaccounts"),
    ):
        yield {
            "metadata": _metadata(role),
            "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _GROUP, "kind": "Group", "name": group} for group in groups],
        }


def _user_roles() -> Iterator[Json]:
    """`admin`, `edit` and `view` are aggregated, so that other roles can be added to them by label."""
    for name, wider in (("view", "edit"), ("edit", "admin"), ("admin", "")):
        labels = {f"{_AGGREGATE}{wider}": "true"} if wider else {}
        selectors = [{"matchLabels": {f"{_AGGREGATE}{name}": "true"}}]
        yield _role(name, labels=labels) | {"aggregationRule": {"clusterRoleSelectors": selectors}}
    yield _part(
        "view",
        _rule("", (*_CORE, *_ACCOUNTS, "bindings", "events", "limitranges", "namespaces", "pods/log"), _READ),
        _rule("", ("namespaces/status", "pods/status", "resourcequotas", "services/status"), _READ),
        *(_rule(group, resources, _READ) for group, resources in _WORKLOADS),
        _rule("discovery.k8s.io", "endpointslices", _READ),
    )
    yield _part(
        "edit",
        _rule("", _SECRET_LIKE, _READ),
        _rule("", _ACCOUNTS, "impersonate"),
        _rule("", (*_CORE, *_ACCOUNTS, *_SECRET_LIKE), _WRITE),
        _rule("", ("pods/eviction", "serviceaccounts/token"), "create"),
        *(_rule(group, resources, _WRITE) for group, resources in _WORKLOADS),
        _rule("coordination.k8s.io", "leases", (*_READ, *_WRITE)),
    )
    yield _part(
        "admin",
        _rule("authorization.k8s.io", "localsubjectaccessreviews", "create"),
        _rule(_GROUP, ("rolebindings", "roles"), (*_READ, *_WRITE)),
    )


def _part(name: str, *rules: Json) -> Json:
    return _role(f"system:aggregate-to-{name}", *rules, labels={f"{_AGGREGATE}{name}": "true"})


def _role(name: str, *rules: Json, labels: Json | None = None) -> Json:
    return {"metadata": _metadata(name, labels or {}), "rules": list(rules)}


def _metadata(name: str, labels: Json | None = None) -> Json:
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }


def _rule(group: str, resources: str | tuple[str, ...], verbs: str | tuple[str, ...]) -> Json:
    return {"apiGroups": [group], "resources": _listed(resources), "verbs": _listed(verbs)}


def _paths(*paths: str, verb: str = "get") -> Json:
    return {"nonResourceURLs": list(paths), "verbs": [verb]}


def _listed(given: str | tuple[str, ...]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
