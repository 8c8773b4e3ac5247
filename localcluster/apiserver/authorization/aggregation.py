"""Fills ClusterRoles that have an aggregationRule with the rules of those that it selects."""

from __future__ import annotations

from typing import Final

from localcluster.apiserver.authorization.rbac import CLUSTER_ROLES
from localcluster.apiserver.calls import labels_of
from localcluster.apiserver.selectors import matches_label_selector
from localcluster.apiserver.store import Json, Store

#: How deep roles that select aggregated roles may be nested.
_DEPTH: Final = 4


def aggregate(store: Store) -> None:
    """Write the aggregated rules where they have changed."""
    for _ in range(_DEPTH):
        written = [_aggregate_one(store, role.content) for role in store.select(CLUSTER_ROLES)]
        if not any(written):
            return


def _aggregate_one(store: Store, role: Json) -> bool:
    """Whether this role had to be written."""
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
    if not role.get("aggregationRule"):
        return False
    rules: list[Json] = []
    for selector in selectors:
        for other in store.select(CLUSTER_ROLES):
            selected = other.content["metadata"]["name"] != role["metadata"]["name"]
            if selected and matches_label_selector(selector, labels_of(other.content)):
                rules += [rule for rule in other.content.get("rules") or () if rule not in rules]
    present = store.get(CLUSTER_ROLES, "", role["metadata"]["name"])
    if present is None or (present.content.get("rules") or []) == rules:
        return False
    store.put(CLUSTER_ROLES, present.copy() | {"rules": rules}, present)
    return True
