"""Defaults of built-in resources: the values that Kubernetes writes into fields that a user left out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

from localcluster.apiserver import policies, storage
from localcluster.apiserver.resources import Resource

Json = dict[str, Any]

_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_MODE: Final = 0o644


def set_defaults(resource: Resource, obj: Json) -> None:
    """Complete a built-in object in place; idempotent."""
    defaulter = _DEFAULTERS.get((resource.group, resource.kind))
    if defaulter is not None:
        defaulter(obj)


def admit_pod_tolerations(pod: Json) -> None:
    """What the DefaultTolerationSeconds admission plugin adds to every new pod."""
    spec = pod["spec"]
    tolerations = list(spec.get("tolerations") or [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        tolerated = any(
            toleration.get("key", key) == key and toleration.get("effect", "NoExecute") in ("", "NoExecute")
            for toleration in tolerations
        )
        if not tolerated:
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            tolerations.append(toleration)
    spec["tolerations"] = tolerations


def begin_pod_status(pod: Json) -> None:
    """The status that every pod begins with: made of what the webhooks have left, hence after them."""
    _fill(pod.setdefault("status", {}), phase="Pending", qosClass=_qos(pod["spec"]))


def _fill(target: Json, **values: Any) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value


def _pod(pod: Json) -> None:
    spec = pod.setdefault("spec", {})
    _pod_spec(spec)
    _fill(spec, enableServiceLinks=True)
    if "status" in pod:
        begin_pod_status(pod)


def _pod_spec(spec: Json) -> None:
    _fill(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
        terminationGracePeriodSeconds=30,
    )
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for container in _dicts(spec.get("initContainers")) + _dicts(spec.get("containers")):
        _container(container)
    for volume in _dicts(spec.get("volumes")):
        _volume(volume)


def _container(container: Json) -> None:
    image = str(container.get("image", "")).rpartition("/")[2]
    latest = "@" not in image and (":" not in image or image.endswith(":latest"))
    _fill(
        container,
        imagePullPolicy="Always" if latest else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    resources = container["resources"]
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for port in _dicts(container.get("ports")):
        _fill(port, protocol="TCP")
    for variable in _dicts(container.get("env")):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            _fill(reference, apiVersion="v1")
    for field in _PROBES:
        probe = container.get(field)
        if isinstance(probe, dict):
            _fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            _http_get(probe)
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http_get(handler)


def _http_get(handler: Json) -> None:
    if isinstance(handler.get("httpGet"), dict):
        _fill(handler["httpGet"], path="/", scheme="HTTP")


def _volume(volume: Json) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if isinstance(volume.get(source), dict):
            _fill(volume[source], defaultMode=_MODE)
    if isinstance(volume.get("hostPath"), dict):
        _fill(volume["hostPath"], type="")
    projected = _dicts((volume.get("projected") or {}).get("sources"))
    for token in projected:
        if isinstance(token.get("serviceAccountToken"), dict):
            _fill(token["serviceAccountToken"], expirationSeconds=3600)
    for downward in [*projected, volume]:
        for item in _dicts((downward.get("downwardAPI") or {}).get("items")):
            if isinstance(item.get("fieldRef"), dict):
                _fill(item["fieldRef"], apiVersion="v1")


def _qos(spec: Json) -> str:
    containers = _dicts(spec.get("initContainers")) + _dicts(spec.get("containers"))
    resources = [container.get("resources") or {} for container in containers]
    if all(not one.get("limits") and not one.get("requests") for one in resources):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= (one.get("limits") or {}).keys() and one.get("requests") == one.get("limits")
        for one in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _template(spec: Json) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        _pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, replicas=1, strategy={}, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    _fill(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        _fill(spec["strategy"], rollingUpdate={})
        _fill(spec["strategy"]["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _daemon_set(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, updateStrategy={}, revisionHistoryLimit=10)
    _fill(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _fill(spec["updateStrategy"], rollingUpdate={})
        _fill(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    _template(spec)


def _stateful_set(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(
        spec,
        replicas=1,
        podManagementPolicy="OrderedReady",
        updateStrategy={},
        revisionHistoryLimit=10,
        persistentVolumeClaimRetentionPolicy={},
    )
    _fill(spec["persistentVolumeClaimRetentionPolicy"], whenDeleted="Retain", whenScaled="Retain")
    _fill(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _fill(spec["updateStrategy"], rollingUpdate={})
        _fill(spec["updateStrategy"]["rollingUpdate"], partition=0)
    for claim in _dicts(spec.get("volumeClaimTemplates")):
        _fill(claim.setdefault("spec", {}), volumeMode="Filesystem")
        _fill(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
    _template(spec)


def _replica_set(obj: Json) -> None:
    _fill(obj.setdefault("spec", {}), replicas=1)
    _template(obj["spec"])


def _job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False, manualSelector=False)
    _fill(spec, completions=1, podReplacementPolicy="TerminatingOrFailed")
    _template(spec)


def _cron_job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    _template((spec.get("jobTemplate") or {}).get("spec") or {})


def _service(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        _fill(spec, internalTrafficPolicy="Cluster", ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    for port in _dicts(spec.get("ports")):
        _fill(port, protocol="TCP", targetPort=port.get("port"))
    _fill(obj, status={"loadBalancer": {}})


def _secret(obj: Json) -> None:
    _fill(obj, type="Opaque")
    texts = obj.pop("stringData", None)
    if texts:
        encoded = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _namespace(obj: Json) -> None:
    metadata = obj["metadata"]
    if metadata.get("name"):
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    _fill(obj.setdefault("spec", {}), finalizers=["kubernetes"])
    _fill(obj.setdefault("status", {}), phase="Active")


def _webhooks(obj: Json) -> None:
    for hook in _dicts(obj.get("webhooks")):
        _fill(hook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        _fill(hook, namespaceSelector={}, objectSelector={})
        if obj["kind"] == "MutatingWebhookConfiguration":
            _fill(hook, reinvocationPolicy="Never")
        for rule in _dicts(hook.get("rules")):
            _fill(rule, scope="*")
        if isinstance((hook.get("clientConfig") or {}).get("service"), dict):
            _fill(hook["clientConfig"]["service"], port=443)


def _definition(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        _fill(names, singular=names["kind"].lower(), listKind=f"{names['kind']}List")
    _fill(spec, conversion={"strategy": "None"})


def _role_binding(obj: Json) -> None:
    if isinstance(obj.get("roleRef"), dict):
        _fill(obj["roleRef"], apiGroup="rbac.authorization.k8s.io")
    for subject in _dicts(obj.get("subjects")):
        if subject.get("kind") != "ServiceAccount":
            _fill(subject, apiGroup="rbac.authorization.k8s.io")


def _dicts(items: Any) -> list[Json]:
    return [item for item in items or () if isinstance(item, dict)]


_DEFAULTERS: Final[dict[tuple[str, str], Callable[[Json], None]]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "Namespace"): _namespace,
    ("", "PersistentVolumeClaim"): storage.complete_claim,
    ("", "PersistentVolume"): storage.complete_volume,
    ("apps", "Deployment"): _deployment,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("networking.k8s.io", "NetworkPolicy"): policies.complete_network_policy,
    ("policy", "PodDisruptionBudget"): policies.complete_budget,
    ("scheduling.k8s.io", "PriorityClass"): policies.complete_priority_class,
    ("storage.k8s.io", "StorageClass"): storage.complete_class,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("rbac.authorization.k8s.io", "RoleBinding"): _role_binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _role_binding,
}
