"""The printer columns of built-in resources, and how the value of a column is found and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from localcluster.apiserver.storage import is_default_class
from localcluster.apiserver.store import Json


@dataclass(frozen=True)
class Column:
    """One column. `value` gets the object and the present time; priority 1 shows with `-o wide` only."""

    name: str
    value: Callable[[Json, datetime], Any]
    type: str = "string"
    priority: int = 0
    format: str = ""

    def definition(self) -> Json:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.name,
            "priority": self.priority,
        }


def age(moment: str | None, now: datetime) -> str:
    """A time as kubectl shows ages: `42s`, `5m12s`, `3h`, `12d`."""
    if not moment:
        return "<unknown>"
    seconds = max(int((now - datetime.fromisoformat(moment)).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{days}d"


def json_path(obj: Any, path: str) -> Any:
    """A value by the simple JSONPath of printer columns: names, indexes and `[?(@.type=="Ready")]` filters."""
    for step in re.findall(r"\[[^\]]*\]|[^.\[]+", path.lstrip(".")):
        obj = _step(obj, step)
        if obj is None:
            return None
    return obj


def _step(obj: Any, step: str) -> Any:
    if not step.startswith("["):
        return obj.get(step.replace("\\", "")) if isinstance(obj, Mapping) else None
    inner = step[1:-1]
    chosen = re.match(r"""\?\(@\.([\w.]+)\s*==\s*["'](.*)["']\)""", inner)
    if chosen and isinstance(obj, list):
        return next((item for item in obj if str(json_path(item, chosen[1])) == chosen[2]), None)
    if re.fullmatch(r"""["'].*["']""", inner):
        return obj.get(inner[1:-1]) if isinstance(obj, Mapping) else None
    if inner.isdigit() and isinstance(obj, list):
        return obj[int(inner)] if int(inner) < len(obj) else None
    if inner == "*" and isinstance(obj, list):
        return ",".join(str(item) for item in obj)
    return None


def _at(path: str, missing: Any = "<none>") -> Callable[[Json, datetime], Any]:
    def value(obj: Json, _now: datetime) -> Any:
        found = json_path(obj, path)
        return missing if found is None else found

    return value


def _size(path: str) -> Callable[[Json, datetime], int]:
    return lambda obj, _now: len(json_path(obj, path) or ())


def _pod_ready(pod: Json, _now: datetime) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    sidecars = [c["name"] for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    inits = (pod.get("status") or {}).get("initContainerStatuses") or ()
    ready = sum(bool(s.get("ready")) for s in statuses)
    ready += sum(bool(s.get("ready")) for s in inits if s["name"] in sidecars)
    return f"{ready}/{len(pod['spec']['containers']) + len(sidecars)}"


def _pod_status(pod: Json, _now: datetime) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status") or {}
    for container in status.get("initContainerStatuses") or ():
        reason = json_path(container, "state.waiting.reason")
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
    for container in status.get("containerStatuses") or ():
        reason = json_path(container, "state.waiting.reason") or json_path(container, "state.terminated.reason")
        if reason:
            return str(reason)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _restarts(pod: Json, _now: datetime) -> str:
    status = pod.get("status") or {}
    counted = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return str(sum(container.get("restartCount", 0) for container in counted))


def _node_status(node: Json, _now: datetime) -> str:
    ready = json_path(node, 'status.conditions[?(@.type=="Ready")].status')
    cordoned = ",SchedulingDisabled" if node.get("spec", {}).get("unschedulable") else ""
    return {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown") + cordoned


def _ports(service: Json, _now: datetime) -> str:
    ports = service["spec"].get("ports") or ()
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _job_status(job: Json, _now: datetime) -> str:
    """The most final condition; a Job without one goes on."""
    held = {c["type"] for c in json_path(job, "status.conditions") or () if c.get("status") == "True"}
    if "Complete" in held or "Failed" in held:
        return "Complete" if "Complete" in held else "Failed"
    if "deletionTimestamp" in job["metadata"]:
        return "Terminating"
    return next((kind for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if kind in held), "Running")


def _completions(job: Json, _now: datetime) -> str:
    spec, done = job["spec"], json_path(job, "status.succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(job: Json, now: datetime) -> str:
    begin, end = json_path(job, "status.startTime"), json_path(job, "status.completionTime")
    return age(begin, datetime.fromisoformat(end) if end else now) if begin else ""


def _ready_of(done: str, wanted: str) -> Callable[[Json, datetime], str]:
    return lambda obj, _now: f"{json_path(obj, done) or 0}/{json_path(obj, wanted) or 0}"


def _list(path: str) -> Callable[[Json, datetime], str]:
    return lambda obj, _now: ",".join(json_path(obj, path) or ()) or "<none>"


def _selector(network_policy: Json, _now: datetime) -> str:
    labels = json_path(network_policy, "spec.podSelector.matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def shown_name(obj: Json, _now: datetime) -> str:
    """The name; the default storage class is marked."""
    name = str(obj["metadata"]["name"])
    return f"{name} (default)" if obj.get("kind") == "StorageClass" and is_default_class(obj) else name


def _access_modes(path: str) -> Callable[[Json, datetime], str]:
    return lambda obj, _now: ",".join(_ACCESS_MODES.get(mode, mode) for mode in json_path(obj, path) or ())


def _claim(volume: Json, _now: datetime) -> str:
    claim = json_path(volume, "spec.claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _role(binding: Json, _now: datetime) -> str:
    return f"{json_path(binding, 'roleRef.kind')}/{json_path(binding, 'roleRef.name')}"


def _moment(path: str) -> Callable[[Json, datetime], str]:
    return lambda obj, now: age(json_path(obj, path), now)


def _last_seen(event: Json, now: datetime) -> str:
    """In this order: what a series of events.k8s.io counts, the older API's times, a single event's time."""
    times = (json_path(event, path) for path in ("series.lastObservedTime", "lastTimestamp", "firstTimestamp"))
    return age(next(filter(None, times), event.get("eventTime")), now)


_ACCESS_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
AGE: Final = Column("Age", _moment("metadata.creationTimestamp"))
BUILTIN: Final[Mapping[tuple[str, str], Sequence[Column]]] = {
    ("", "pods"): (
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _restarts),
        Column("IP", _at("status.podIP"), priority=1),
        Column("Node", _at("spec.nodeName"), priority=1),
    ),
    ("", "namespaces"): (Column("Status", _at("status.phase")),),
    ("", "nodes"): (Column("Status", _node_status), Column("Version", _at("status.nodeInfo.kubeletVersion", ""))),
    ("", "configmaps"): (Column("Data", _size("data"), "integer"),),
    ("", "secrets"): (Column("Type", _at("type")), Column("Data", _size("data"), "integer")),
    ("", "serviceaccounts"): (Column("Secrets", _size("secrets"), "integer"),),
    ("", "services"): (
        Column("Type", _at("spec.type")),
        Column("Cluster-IP", _at("spec.clusterIP")),
        Column("External-IP", lambda _obj, _now: "<none>"),
        Column("Port(s)", _ports),
    ),
    ("", "events"): (
        Column("Last Seen", _last_seen),
        Column("Type", _at("type", "")),
        Column("Reason", _at("reason", "")),
        Column(
            "Object",
            lambda e, _now: f"{str(e['involvedObject'].get('kind', '')).lower()}/{e['involvedObject'].get('name', '')}",
        ),
        Column("Message", _at("message", "")),
    ),
    ("apps", "deployments"): (
        Column("Ready", _ready_of("status.readyReplicas", "spec.replicas")),
        Column("Up-to-date", _at("status.updatedReplicas", 0), "integer"),
        Column("Available", _at("status.availableReplicas", 0), "integer"),
    ),
    ("apps", "replicasets"): (
        Column("Desired", _at("spec.replicas", 0), "integer"),
        Column("Current", _at("status.replicas", 0), "integer"),
        Column("Ready", _at("status.readyReplicas", 0), "integer"),
    ),
    ("apps", "statefulsets"): (Column("Ready", _ready_of("status.readyReplicas", "spec.replicas")),),
    ("apps", "daemonsets"): (
        Column("Desired", _at("status.desiredNumberScheduled", 0), "integer"),
        Column("Current", _at("status.currentNumberScheduled", 0), "integer"),
        Column("Ready", _at("status.numberReady", 0), "integer"),
        Column("Up-to-date", _at("status.updatedNumberScheduled", 0), "integer"),
        Column("Available", _at("status.numberAvailable", 0), "integer"),
    ),
    ("batch", "jobs"): (
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", _duration),
    ),
    ("coordination.k8s.io", "leases"): (Column("Holder", _at("spec.holderIdentity", "")),),
    ("", "persistentvolumeclaims"): (
        Column("Status", _at("status.phase", "")),
        Column("Volume", _at("spec.volumeName", "")),
        Column("Capacity", _at("status.capacity.storage", "")),
        Column("Access Modes", _access_modes("status.accessModes")),
        Column("StorageClass", _at("spec.storageClassName", "")),
        Column("VolumeMode", _at("spec.volumeMode", ""), priority=1),
    ),
    ("", "persistentvolumes"): (
        Column("Capacity", _at("spec.capacity.storage", "")),
        Column("Access Modes", _access_modes("spec.accessModes")),
        Column("Reclaim Policy", _at("spec.persistentVolumeReclaimPolicy", "")),
        Column("Status", _at("status.phase", "")),
        Column("Claim", _claim),
        Column("StorageClass", _at("spec.storageClassName", "")),
        Column("Reason", _at("status.reason", "")),
        Column("VolumeMode", _at("spec.volumeMode", ""), priority=1),
    ),
    ("storage.k8s.io", "storageclasses"): (
        Column("Provisioner", _at("provisioner")),
        Column("ReclaimPolicy", _at("reclaimPolicy")),
        Column("VolumeBindingMode", _at("volumeBindingMode")),
        Column("AllowVolumeExpansion", _at("allowVolumeExpansion", False), "boolean"),
    ),
    ("policy", "poddisruptionbudgets"): (
        Column("Min Available", _at("spec.minAvailable", "N/A")),
        Column("Max Unavailable", _at("spec.maxUnavailable", "N/A")),
        Column("Allowed Disruptions", _at("status.disruptionsAllowed", 0), "integer"),
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        Column("Value", _at("value", 0), "integer"),
        Column("Global-Default", _at("globalDefault", False), "boolean"),
        Column("PreemptionPolicy", _at("preemptionPolicy", "")),
    ),
    ("networking.k8s.io", "networkpolicies"): (Column("Pod-Selector", _selector),),
    ("networking.k8s.io", "servicecidrs"): (Column("CIDRs", _list("spec.cidrs")),),
    **{
        ("rbac.authorization.k8s.io", plural): (Column("Role", _role),)
        for plural in ("rolebindings", "clusterrolebindings")
    },
    ("apiextensions.k8s.io", "customresourcedefinitions"): (Column("Created At", _at("metadata.creationTimestamp")),),
}
