"""Turns a pod and a plan into JSON Patch operations (RFC 6902), written directly: no copy of the pod, no diffing.

Every step adds only what is not there yet. So a second pass over its own output is empty, and a container that
another webhook added between two rounds gets what the others have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

from edgefarm import names
from webhook import meshes
from webhook import pod as pods
from webhook.pod import Container, Pod
from webhook.settings import Injection
from webhook.template import (
    CREDENTIALS_GROUP,
    Additions,
    Form,
    Item,
    Plan,
    Traits,
    additions,
)

Operation = dict[str, Any]
MakeAdditions = Callable[[Plan, Injection, Traits], Additions]

#: So that `kubectl logs` and `kubectl exec` still mean the application when the sidecar is the first container.
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


def inject(pod: Pod, plan: Plan, settings: Injection, make: MakeAdditions = additions) -> list[Operation]:
    """Operations that put the sidecar of `plan` into the pod; empty when nothing is missing.

    With `encoded_additions` their values are JSON text, for `msgspec.json.encode` alone.

    Containers are changed before the sidecar is inserted, so that their positions are those of the pod that came in.
    """
    added = make(plan, settings, Traits.of(pod))
    operations = [
        *_applications(pod, added),
        *(_group(pod) if added.group else ()),
        *_add_missing(pod["spec"].get("volumes"), "/spec/volumes", added.volumes, itemgetter("name")),
    ]
    if pods.has_sidecar(pod):
        return operations + _moved(pod)
    return operations + _containers(pod, added) + list(_annotations(pod, plan, added))


def _applications(pod: Pod, added: Additions) -> Iterator[Operation]:
    """Environment and mounts of every container that is not the sidecar; what the user wrote wins."""
    spec = pod["spec"]
    for place, containers, environment in (
        ("initContainers", spec.get("initContainers"), added.init_environment),
        ("containers", spec["containers"], added.environment),
    ):
        for index, container in enumerate(containers or ()):
            if not pods.is_ours(container):
                path, mounts = f"/spec/{place}/{index}", container.get("volumeMounts")
                yield from _add_missing(container.get("env"), f"{path}/env", environment, attrgetter("name"))
                # By path, not by volume: a container may mount the credentials at a second path of its own.
                yield from _add_missing(mounts, f"{path}/volumeMounts", added.mounts, itemgetter("mountPath"))


def _group(pod: Pod) -> Iterator[Operation]:
    """Put the containers into the group that may read the credentials."""
    security = pod["spec"].get("securityContext")
    groups = security.get("supplementalGroups") if security else None
    if CREDENTIALS_GROUP in (groups or []):
        return
    path, value = "/spec/securityContext", [CREDENTIALS_GROUP]
    if security is None:  # an empty one may hold members that we do not read
        yield {"op": "add", "path": path, "value": {"supplementalGroups": value}}
    elif not groups:
        yield {"op": "add", "path": f"{path}/supplementalGroups", "value": value}
    else:
        yield {"op": "add", "path": f"{path}/supplementalGroups/-", "value": CREDENTIALS_GROUP}


def _add_missing(
    present: Sequence[Any] | None, path: str, wanted: Mapping[str, Item], key: Callable[[Any], str]
) -> list[Operation]:
    """Append the items whose key is not in the list `present` at `path`, which may be missing altogether."""
    if not wanted:
        return []
    if not present:
        # A second "add" of the list itself would replace the first: it is made once, with all items.
        return [{"op": "add", "path": path, "value": list(wanted.values())}]
    # Pods with thousands of variables exist: this looks at each of them once and builds nothing.
    missing = wanted.keys() - map(key, present)
    return [{"op": "add", "path": f"{path}/-", "value": item} for name, item in wanted.items() if name in missing]


def _containers(pod: Pod, added: Additions) -> list[Operation]:
    present = pod["spec"].get("initContainers") or []
    if added.init_container is None and added.sidecar is not None:
        return [_insert_init(present, meshes.place(present), added.sidecar)]
    operations = [] if added.init_container is None else [_insert_init(present, 0, added.init_container)]
    if added.sidecar is not None:
        operations.append({"op": "add", "path": "/spec/containers/0", "value": added.sidecar})
    return operations


def _insert_init(present: Sequence[Container], position: int, container: Item) -> Operation:
    if not present:
        return {"op": "add", "path": "/spec/initContainers", "value": [container]}
    return {"op": "add", "path": f"/spec/initContainers/{position}", "value": container}


def _moved(pod: Pod) -> list[Operation]:
    """Let a mesh that came after our native sidecar go first; everything else keeps its order."""
    move = meshes.move(pod["spec"].get("initContainers") or [])
    if move is None:
        return []
    return [{"op": "move", "from": f"/spec/initContainers/{move[0]}", "path": f"/spec/initContainers/{move[1]}"}]


def _annotations(pod: Pod, plan: Plan, added: Additions) -> Iterator[Operation]:
    wanted = {names.ANNOTATION_STATUS: added.status}
    present: Mapping[str, str] = pods.annotations_of(pod)
    if plan.form is Form.CONTAINER and DEFAULT_CONTAINER not in present:
        wanted[DEFAULT_CONTAINER] = pod["spec"]["containers"][0]["name"]
    if not present:
        yield {"op": "add", "path": "/metadata/annotations", "value": wanted}
        return
    for name, value in wanted.items():
        yield {"op": "add", "path": f"/metadata/annotations/{_escape(name)}", "value": value}


def _escape(member: str) -> str:
    """A member name as a part of a JSON pointer (RFC 6901)."""
    return member.replace("~", "~0").replace("/", "~1")
