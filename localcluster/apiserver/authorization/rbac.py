"""Decides requests from Roles, ClusterRoles and bindings, by an index of subjects that follows the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from localcluster.apiserver.authorization.attributes import Attributes
from localcluster.apiserver.authorization.rules import EVERYTHING, Rule
from localcluster.apiserver.failures import ApiError
from localcluster.apiserver.resources import Bucket
from localcluster.apiserver.store import Store
from localcluster.apiserver.tokens import User

Json = dict[str, Any]
GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final[Bucket] = (GROUP, "roles")
CLUSTER_ROLES: Final[Bucket] = (GROUP, "clusterroles")
ROLE_BINDINGS: Final[Bucket] = (GROUP, "rolebindings")
CLUSTER_ROLE_BINDINGS: Final[Bucket] = (GROUP, "clusterrolebindings")
_BUCKETS: Final = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
_SUPERUSERS: Final = "system:masters"
#: (kind, name) of a subject: a User, which service accounts are too, or a Group.
_Subject = tuple[str, str]


@dataclass(frozen=True)
class Decision:
    """Whether something is allowed, and by what; for a refusal, what is wrong with the roles."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class _Grant:
    """What one binding gives one subject; `error` when its role does not exist."""

    rules: tuple[Rule, ...]
    origin: str
    error: str = ""


class Rbac:
    """The authorizer of one cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: tuple[int, ...] = ()
        #: (namespace, subject) -> grants; namespace "" for ClusterRoleBindings.
        self._grants: dict[tuple[str, _Subject], list[_Grant]] = {}

    def decide(self, user: User, wanted: Attributes) -> Decision:
        """Whether this user may do this."""
        if _SUPERUSERS in user.groups:
            return Decision(True)
        errors = []
        for grant in self._of(user, wanted.namespace):
            if any(rule.allows(wanted) for rule in grant.rules):
                return Decision(True, f"RBAC: allowed by {grant.origin}")
            if grant.error:
                errors.append(grant.error)
        return Decision(False, f"RBAC: {_joined(errors)}" if errors else "")

    def require(self, user: User, wanted: Attributes) -> Decision:
        """The decision; ApiError in Kubernetes' words when it is a refusal."""
        decision = self.decide(user, wanted)
        if not decision.allowed:
            raise refused(user, wanted, decision.reason)
        return decision

    def rules_of(self, user: User, namespace: str) -> list[Rule]:
        """Everything that the user holds in a namespace (`""`: in all of them)."""
        if _SUPERUSERS in user.groups:
            return list(EVERYTHING)
        return [rule for grant in self._of(user, namespace) for rule in grant.rules]

    def role_rules(self, reference: Json, namespace: str) -> tuple[Rule, ...] | None:
        """The rules of the role that a binding in `namespace` refers to; None when there is none."""
        cluster_wide = reference.get("kind") == "ClusterRole"
        bucket, namespace = (CLUSTER_ROLES, "") if cluster_wide else (ROLES, namespace)
        found = self._store.get(bucket, namespace, reference.get("name", ""))
        return None if found is None else tuple(Rule.parse(raw) for raw in found.content.get("rules") or ())

    def _of(self, user: User, namespace: str) -> Iterator[_Grant]:
        self._follow()
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for where in ("", namespace) if namespace else ("",):
            for subject in subjects:
                yield from self._grants.get((where, subject), ())

    def _follow(self) -> None:
        """Build the index anew when a role or binding has changed."""
        present = tuple(self._store.last_change(bucket) for bucket in _BUCKETS)
        if present == self._seen:
            return
        grants: dict[tuple[str, _Subject], list[_Grant]] = defaultdict(list)
        for bucket in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
            for stored in self._store.select(bucket):
                for where, subject, grant in self._granted(stored.content):
                    grants[where, subject].append(grant)
        self._grants, self._seen = dict(grants), present

    def _granted(self, binding: Json) -> Iterator[tuple[str, _Subject, _Grant]]:
        namespace, reference = binding["metadata"].get("namespace", ""), binding["roleRef"]
        rules = self.role_rules(reference, namespace)
        error = ""
        if rules is None:
            error = f'{reference["kind"].lower()}.{GROUP} "{reference["name"]}" not found'
        name = binding["metadata"]["name"] + (f"/{namespace}" if namespace else "")
        for subject in binding.get("subjects") or ():
            home = subject.get("namespace") or namespace
            of_account = subject["kind"] == "ServiceAccount"
            shown = f"{subject['name']}/{home}" if of_account else subject["name"]
            origin = f'{binding["kind"]} "{name}" of {reference["kind"]} "{reference["name"]}" to {subject["kind"]}'
            key = ("User", f"system:serviceaccount:{home}:{subject['name']}")
            if not of_account:
                key = (subject["kind"], subject["name"])
            yield namespace, key, _Grant(rules or (), f'{origin} "{shown}"', error)


def refused(user: User, wanted: Attributes, reason: str = "") -> ApiError:
    """403 as Kubernetes words it."""
    details = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
    what = "forbidden"
    if wanted.resource:
        resource = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
        what = f'{resource} "{wanted.name}" is forbidden' if wanted.name else f"{resource} is forbidden"
    message = f"{what}: {wanted.refusal(user.name)}" + (f": {reason}" if reason else "")
    return ApiError(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def _joined(errors: list[str]) -> str:
    distinct = list(dict.fromkeys(errors))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"
