"""The rights that rendered roles give, one by one, and those that an audit log shows to be used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource; `name` is empty for all objects, `cluster` says that all namespaces are meant."""

    cluster: bool
    group: str
    resource: str
    name: str
    verb: str

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        where = "ClusterRole" if self.cluster else "Role"
        return f"{where}: {self.verb} {self.resource}{'.' if self.group else ''}{self.group}{name}"


@dataclass(frozen=True)
class Use:
    """What a service account was allowed or refused."""

    account: str
    allowed: bool
    verb: str
    group: str
    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.account}: {self.verb} {self.resource}.{self.group} {self.namespace}/{self.name}"


def rights_in(objects: Iterable[Json]) -> set[Right]:
    """All that Roles and ClusterRoles give; they belong to one service account."""
    return {
        Right(obj["kind"] == "ClusterRole", group, resource, name, verb)
        for obj in objects
        if obj["kind"] in ("ClusterRole", "Role")
        for rule in obj["rules"]
        for group, resource, name, verb in product(
            rule["apiGroups"], rule["resources"], rule.get("resourceNames") or [""], rule["verbs"]
        )
    }


def uses_in(log: Path, namespace: str) -> Iterator[Use]:
    """What the service accounts of a namespace did or tried to do with resources."""
    prefix = f"system:serviceaccount:{namespace}:"
    for line in log.read_text().splitlines():
        event = json.loads(line)
        user, about = event["user"].get("username", ""), event.get("objectRef")
        if about is None or not user.startswith(prefix):
            continue
        subresource = about.get("subresource")
        use = Use(
            user.removeprefix(prefix),
            event["annotations"]["authorization.k8s.io/decision"] == "allow",
            event["verb"],
            about.get("apiGroup", ""),
            f"{about['resource']}/{subresource}" if subresource else about["resource"],
            about.get("namespace", ""),
            about.get("name", ""),
        )
        yield use


def unused(rights: Iterable[Right], uses: Iterable[Use], namespace: str) -> set[Right]:
    """The rights that were not needed; those of a ClusterRole must be needed outside of the namespace."""
    needed = set()
    for use in uses:
        names = ("", use.name) if use.name else ("",)
        for cluster, name in product((False, True), names):
            if cluster is (use.namespace != namespace):
                needed.add(Right(cluster, use.group, use.resource, name, use.verb))
    return set(rights) - needed


def implied(rights: set[Right]) -> set[Right]:
    """The rights that another one includes."""
    return {
        right
        for right in rights
        for cluster, name in product((right.cluster, True), (right.name, ""))
        if (cluster, name) != (right.cluster, right.name)
        and Right(cluster, right.group, right.resource, name, right.verb) in rights
    }
