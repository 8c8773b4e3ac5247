"""What Kubernetes refuses in metadata and built-in resources, as far as this product leans on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from localcluster.apiserver import cluster_ips, policies, storage
from localcluster.apiserver.failures import Cause
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.selectors import matches_label_selector

Json = dict[str, Any]

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
#: The name of an environment variable: printable ASCII without `=`.
_VARIABLE: Final = re.compile(r"[ -<>-~]+")
_VARIABLE_HINT: Final = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_LABEL_HINT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_HINT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_HINT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_HINT: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
#: Kinds whose names are DNS labels; names of RBAC objects may hold any character but `/` and `%`.
_LABEL_NAMES: Final = frozenset({("", "namespaces"), ("", "services")})
_RBAC: Final = "rbac.authorization.k8s.io"


def check_metadata(resource: Resource, obj: Json) -> list[Cause]:
    """Name, labels and annotations of any object; `generateName` has been used already."""
    metadata = obj["metadata"]
    causes: list[Cause] = []
    name = metadata.get("name")
    if not name:
        causes.append(Cause.required("metadata.name", "name or generateName is required"))
    else:
        causes += [Cause.invalid("metadata.name", name, hint) for hint in _name_problems(resource, name)]
    causes += _labels("metadata.labels", metadata.get("labels") or {})
    causes += [
        Cause.invalid("metadata.annotations", key, _KEY_HINT)
        for key in metadata.get("annotations") or {}
        if not _is_key(key.lower())
    ]
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        causes += [
            Cause.invalid(f"metadata.ownerReferences[{index}].{field}", "", "must not be empty")
            if field != "apiVersion"
            else Cause.invalid(f"metadata.ownerReferences[{index}].apiVersion", "", "version must not be empty")
            for field in ("apiVersion", "kind", "name", "uid")
            if not owner.get(field)
        ]
    return causes


def check(resource: Resource, obj: Json, old: Json | None) -> list[Cause]:
    """What is wrong with a built-in object; `old` is what it replaces."""
    checker = _CHECKERS.get((resource.group, resource.kind))
    return [] if checker is None else checker(obj, old)


def _name_problems(resource: Resource, name: str) -> list[str]:
    if resource.group == _RBAC:
        bad = [f"may not contain '{sign}'" for sign in "/%" if sign in name]
        return bad or (["may not be '.'"] if name in (".", "..") else [])
    if resource.bucket in _LABEL_NAMES:
        return _label_problems(name)
    if len(name) > 253:
        return ["must be no more than 253 characters"]
    return [] if _SUBDOMAIN.fullmatch(name) else [_SUBDOMAIN_HINT]


def _label_problems(name: str) -> list[str]:
    too_long = ["must be no more than 63 characters"] if len(name) > 63 else []
    return too_long + ([] if _LABEL.fullmatch(name) else [_LABEL_HINT])


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def _labels(path: str, labels: Json) -> list[Cause]:
    causes = [Cause.invalid(path, key, _KEY_HINT) for key in labels if not _is_key(key)]
    for value in labels.values():
        if not isinstance(value, str) or len(value) > 63:
            causes.append(Cause.invalid(path, value, "must be no more than 63 characters"))
        elif value and not _QUALIFIED.fullmatch(value):
            causes.append(Cause.invalid(path, value, _VALUE_HINT))
    return causes


def _pod(pod: Json, old: Json | None) -> list[Cause]:
    if old is None:
        return list(_pod_spec(pod["spec"], "spec"))
    if old["spec"].get("nodeName", pod["spec"].get("nodeName")) != pod["spec"].get("nodeName"):
        return [Cause.forbidden("spec.nodeName", "may not be changed once it is set")]
    if _immutable_part(pod["spec"]) != _immutable_part(old["spec"]):
        hint = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        return [Cause.forbidden("spec", hint)]
    return []


def _immutable_part(spec: Json) -> Json:
    rest = {
        k: v
        for k, v in spec.items()
        if k not in ("activeDeadlineSeconds", "tolerations", "ephemeralContainers", "nodeName")
    }
    for field in ("containers", "initContainers"):
        if field in rest:
            rest[field] = [{k: v for k, v in container.items() if k != "image"} for container in rest[field]]
    return rest


def _pod_spec(spec: Json, path: str, claimed: Iterable[str] = ()) -> Iterable[Cause]:
    """`claimed` are volumes that exist besides the listed ones: the claims of a StatefulSet."""
    if not spec.get("containers"):
        yield Cause.required(f"{path}.containers")
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _dns_name(volume, f"{path}.volumes[{index}]", volumes)
        if len(set(volume) - {"name"}) > 1:
            yield Cause.forbidden(f"{path}.volumes[{index}]", "may not specify more than 1 volume type")
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            where = f"{path}.{field}[{index}]"
            yield from _dns_name(container, where, names)
            yield from _container(container, where, volumes.union(claimed))
            policy = container.get("restartPolicy")
            if field == "containers" and policy is not None and policy not in ("Always", "OnFailure", "Never"):
                yield Cause.invalid(f"{where}.restartPolicy", policy, "must be Always, OnFailure or Never")
            if field == "initContainers" and policy != "Always":
                for member in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
                    if container.get(member) is not None:
                        hint = "may not be set for init containers without restartPolicy=Always"
                        yield Cause.forbidden(f"{where}.{member}", hint)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        yield Cause.unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))


def _container(container: Json, path: str, volumes: set[str]) -> Iterable[Cause]:
    if not container.get("image"):
        yield Cause.required(f"{path}.image")
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield Cause.not_found(f"{where}.name", mount.get("name", ""))
        if not mount.get("mountPath"):
            yield Cause.required(f"{where}.mountPath")
        elif mount["mountPath"] in mounted:
            yield Cause.invalid(f"{where}.mountPath", mount["mountPath"], "must be unique")
        mounted.add(mount.get("mountPath", ""))
    ports: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        where = f"{path}.ports[{index}]"
        number = port.get("containerPort")
        if not number:
            yield Cause.required(f"{where}.containerPort")
        elif not 0 < number < 65536:
            yield Cause.invalid(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
        if port.get("name") in ports:
            yield Cause.duplicate(f"{where}.name", port["name"])
        ports |= {port["name"]} if port.get("name") else set()
    if _only_huge_pages(container.get("resources") or {}):
        yield Cause.forbidden(f"{path}.resources", "HugePages require cpu or memory")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield Cause.required(f"{path}.env[{index}].name")
        elif not _VARIABLE.fullmatch(variable["name"]):
            yield Cause.invalid(f"{path}.env[{index}].name", variable["name"], _VARIABLE_HINT)
        if variable.get("value") and variable.get("valueFrom"):
            hint = "may not be specified when `value` is not empty"
            yield Cause.invalid(f"{path}.env[{index}].valueFrom", "", hint)


def _only_huge_pages(resources: Json) -> bool:
    named = {name for kind in ("limits", "requests") for name in resources.get(kind) or ()}
    return any(name.startswith("hugepages-") for name in named) and not named & {"cpu", "memory"}


def _dns_name(item: Json, path: str, seen: set[str]) -> Iterable[Cause]:
    name = item.get("name")
    if not name:
        yield Cause.required(f"{path}.name")
        return
    for hint in _label_problems(name):
        yield Cause.invalid(f"{path}.name", name, hint)
    if name in seen:
        yield Cause.duplicate(f"{path}.name", name)
    seen.add(name)


def _workload(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    selector, template = spec.get("selector"), spec.get("template") or {}
    if not selector:
        causes.append(Cause.required("spec.selector"))
    else:
        labels = (template.get("metadata") or {}).get("labels") or {}
        if not matches_label_selector(selector, labels):
            hint = "`selector` does not match template `labels`"
            causes.append(Cause.invalid("spec.template.metadata.labels", labels, hint))
    causes += _labels("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels") or {})
    claimed = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    causes += _pod_spec(template.get("spec") or {}, "spec.template.spec", claimed)
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        causes.append(Cause.unsupported("spec.template.spec.restartPolicy", policy, ("Always",)))
    replicas = spec.get("replicas", 0)
    if replicas < 0:
        hint = "must be greater than or equal to 0"
        causes.append(Cause.invalid("spec.replicas", replicas, hint))
    if old is not None and selector != old["spec"].get("selector"):
        causes.append(Cause.invalid("spec.selector", selector, "field is immutable"))
    return causes


def _stateful_set(obj: Json, old: Json | None) -> list[Cause]:
    causes = _workload(obj, old)
    mutable = {"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit"}
    mutable |= {"persistentVolumeClaimRetentionPolicy", "minReadySeconds"}
    if old is not None and _without(obj["spec"], mutable) != _without(old["spec"], mutable):
        hint = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        causes.append(Cause.forbidden("spec", hint))
    return causes


def _configuration(obj: Json, old: Json | None) -> list[Cause]:
    if old is not None and old.get("immutable") and any(obj.get(f) != old.get(f) for f in ("data", "binaryData")):
        return [Cause.forbidden("data", "field is immutable when `immutable` is set")]
    return []


def _service(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj["spec"]
    ports = spec.get("ports") or []
    causes = cluster_ips.problems(obj, old)
    if not ports and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        causes.append(Cause.required("spec.ports"))
    for index, port in enumerate(ports):
        if not 0 < (port.get("port") or 0) < 65536:
            hint = "must be between 1 and 65535, inclusive"
            causes.append(Cause.invalid(f"spec.ports[{index}].port", port.get("port", 0), hint))
        if len(ports) > 1 and not port.get("name"):
            causes.append(Cause.required(f"spec.ports[{index}].name"))
    return causes


def _role_binding(obj: Json, old: Json | None) -> list[Cause]:
    if old is not None and obj.get("roleRef") != old.get("roleRef"):
        return [Cause.invalid("roleRef", obj.get("roleRef"), "cannot change roleRef")]
    return []


def _webhooks(obj: Json, _old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, hook in enumerate(obj.get("webhooks") or ()):
        where = f"webhooks[{index}]"
        if len(str(hook.get("name", "")).split(".")) < 3:
            hint = "should be a domain with at least three segments separated by dots"
            causes.append(Cause.invalid(f"{where}.name", hook.get("name", ""), hint))
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            causes.append(Cause.unsupported(f"{where}.sideEffects", hook.get("sideEffects"), ("None", "NoneOnDryRun")))
        if "v1" not in (hook.get("admissionReviewVersions") or ()):
            hint = "must include at least one of v1, v1beta1"
            causes.append(Cause.invalid(f"{where}.admissionReviewVersions", [], hint))
        client = hook.get("clientConfig") or {}
        if ("url" in client) is ("service" in client):
            causes.append(Cause.required(f"{where}.clientConfig", "exactly one of url or service is required"))
        elif "url" in client and not client["url"].startswith("https://"):
            hint = f"'https' is the only allowed URL scheme; desired format: https://host[/path]"  # noqa: F541
            causes.append(Cause.invalid(f"{where}.clientConfig.url", client["url"], hint))
    return causes


def _without(spec: Json, fields: set[str]) -> Json:
    return {key: value for key, value in spec.items() if key not in fields}


_CHECKERS: Final[dict[tuple[str, str], Callable[[Json, Json | None], list[Cause]]]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "ConfigMap"): _configuration,
    ("", "Secret"): _configuration,
    ("", "PersistentVolume"): storage.volume_problems,
    ("", "PersistentVolumeClaim"): storage.claim_problems,
    ("apps", "Deployment"): _workload,
    ("apps", "DaemonSet"): _workload,
    ("apps", "ReplicaSet"): _workload,
    ("apps", "StatefulSet"): _stateful_set,
    ("networking.k8s.io", "NetworkPolicy"): policies.network_policy_problems,
    ("networking.k8s.io", "ServiceCIDR"): policies.range_problems,
    ("policy", "PodDisruptionBudget"): policies.budget_problems,
    ("scheduling.k8s.io", "PriorityClass"): policies.priority_class_problems,
    ("storage.k8s.io", "StorageClass"): storage.class_problems,
    ("rbac.authorization.k8s.io", "RoleBinding"): _role_binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _role_binding,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
}
