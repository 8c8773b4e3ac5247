"""What a request wants to do, read from its method, path and query as Kubernetes' RequestInfo does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_VERBS: Final = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
#: What follows a namespace's own name without being a resource in it.
_NAMESPACE_SUBRESOURCES: Final = ("status", "finalize")
_NAME_SELECTOR: Final = re.compile(r"(?:^|,)metadata\.name==?([^,]+)")


@dataclass(frozen=True, slots=True)
class Attributes:
    """A verb on a resource, or on a path that is no resource: then `resource` is empty."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def qualified(self) -> str:
        """The resource as rules name it: with its subresource."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def refusal(self, user: str) -> str:
        """Kubernetes' sentence for a user who may not do this."""
        if not self.resource:
            return f'User "{user}" cannot {self.verb} path "{self.path}"'
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'User "{user}" cannot {self.verb} resource "{self.qualified}" in API group "{self.group}" {where}'


def attributes_of(method: str, path: str, query: Mapping[str, str]) -> Attributes:
    """The attributes of one HTTP request."""
    steps = path.strip("/").split("/")
    least = {"api": 3, "apis": 4}.get(steps[0])
    if least is None or len(steps) < least:
        return Attributes(method.lower(), path)
    group = "" if steps[0] == "api" else steps[1]
    version, steps = steps[least - 2], steps[least - 1 :]
    namespace = ""
    if steps[0] == "namespaces" and len(steps) > 1:
        namespace = steps[1]
        if len(steps) > 2 and steps[2] not in _NAMESPACE_SUBRESOURCES:
            steps = steps[2:]
    resource, name, subresource = (*steps, "", "")[:3]
    verb = _VERBS.get(method, method.lower())
    if not name:
        verb, name = _collection_verb(verb, query), _selected_name(verb, query)
    return Attributes(verb, path, group, version, resource, subresource, namespace, name)


def _collection_verb(verb: str, query: Mapping[str, str]) -> str:
    if verb == "get":
        return "watch" if query.get("watch", "").lower() in ("1", "true") else "list"
    return "deletecollection" if verb == "delete" else verb


def _selected_name(verb: str, query: Mapping[str, str]) -> str:
    """The one name that a field selector leaves: rules with resourceNames then apply to lists and watches too."""
    if verb not in ("get", "delete"):
        return ""
    found = _NAME_SELECTOR.search(query.get("fieldSelector", ""))
    return found[1] if found else ""
