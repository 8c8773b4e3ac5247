"""Hypothesis strategies for pods that Kubernetes would admit and that join a network."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from edgefarm import names
from webhook.annotations import Mode

Json = dict[str, Any]

labels = st.sampled_from(["a", "foo", "edge-1", "x" * 63, "0"])
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
_coin = st.booleans()
#: Names of containers, among them those of meshes, which change where ours stands.
_NAMES = ("app", "logs", "worker", "x" * 63, "istio-init", "istio-proxy", "linkerd-proxy", "linkerd-init")
_VOLUMES = ("data", "cache", "x" * 63)
#: Paths near ours, and others.
_PATHS = (
    "/data",
    "/cache",
    "/var",
    "/run/",
    "/var/run",
    "/var/run/edgefarm",
    "/var/run/edgefarm/credentials2",
    "/var/run/edgefarm/credentials/nats.creds",
)
#: Variables, among them those that we set.
_VARIABLES = ("A", "B_C", "_x.y-z", "NATS_URL", "NATS_CREDS", "NATS_CA", "DAPR_HTTP_PORT", "DAPR_GRPC_ENDPOINT")


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object with any of these members."""
    return st.fixed_dictionaries({}, optional=members)


def lists_or_nothing(items: st.SearchStrategy[Any], key: str, most: int = 3) -> st.SearchStrategy[Any]:
    """None, an empty list, or some items whose `key` is unique, as Kubernetes demands."""
    return st.one_of(st.none(), st.lists(items, max_size=most, unique_by=lambda item: item[key]))


_security = optional(
    runAsUser=st.integers(0, 70000),
    runAsGroup=st.integers(0, 70000),
    runAsNonRoot=st.booleans(),
    seccompProfile=st.sampled_from([{"type": "RuntimeDefault"}, {"type": "Unconfined"}]),
)
_container_security = st.tuples(
    _security,
    optional(
        allowPrivilegeEscalation=st.booleans(),
        readOnlyRootFilesystem=st.booleans(),
        capabilities=st.sampled_from([{"drop": ["ALL"]}, {"add": ["NET_ADMIN"]}, {}]),
    ),
).map(lambda parts: parts[0] | parts[1])
_pod_security = st.tuples(
    _security,
    optional(
        fsGroup=st.integers(0, 70000),
        supplementalGroups=st.lists(st.sampled_from([0, 1000, 65532]), unique=True),
        fsGroupChangePolicy=st.sampled_from(["Always", "OnRootMismatch"]),
    ),
).map(lambda parts: parts[0] | parts[1])
#: What makes a container restricted, often enough that such pods are seen.
_RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_quantities = optional(cpu=st.sampled_from(["100m", "1"]), memory=st.sampled_from(["64Mi", "1Gi"]))
_resources = optional(requests=_quantities, limits=_quantities)
_env = st.one_of(
    st.fixed_dictionaries({"name": st.sampled_from(_VARIABLES), "value": texts}),
    st.fixed_dictionaries({"name": st.sampled_from(_VARIABLES)}),
    st.fixed_dictionaries(
        {"name": st.sampled_from(_VARIABLES), "valueFrom": st.just({"fieldRef": {"fieldPath": "metadata.uid"}})}
    ),
)


_mount = st.fixed_dictionaries(
    {"name": st.sampled_from(_VOLUMES), "mountPath": st.sampled_from(_PATHS)}, optional={"readOnly": _coin}
)
_port = st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(["TCP", "UDP", "SCTP"])})
_probe = st.sampled_from([{"httpGet": {"port": 80}}, {"exec": {"command": ["true"]}, "periodSeconds": 5}])
#: A container without its name.
containers = st.builds(
    lambda members: {"image": "registry.example/app:1", **members},
    optional(
        command=st.lists(texts, max_size=2),
        env=lists_or_nothing(_env, "name"),
        volumeMounts=lists_or_nothing(_mount, "mountPath"),
        ports=st.one_of(st.none(), st.lists(_port, max_size=2)),
        resources=_resources,
        securityContext=st.one_of(_container_security, st.just(_RESTRICTED)),
        readinessProbe=_probe,
    ),
)
_names = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=5, unique=True)


@st.composite
def pods(draw: st.DrawFn) -> Json:
    """A pod that must be injected."""
    mode = draw(st.sampled_from(list(Mode)))
    titles = draw(_names)
    split = draw(st.integers(0, len(titles) - 1))
    init = [{"name": title, **draw(containers)} for title in titles[:split]]
    main = [{"name": title, **draw(containers)} for title in titles[split:]]
    for container in init:
        if draw(_coin):
            container["restartPolicy"] = "Always"
    _number_ports([*init, *main], draw(st.sampled_from([1, 3501, 8080, 50002])))
    spec: Json = {"containers": main, **draw(_spec_members)}
    if init or bool(draw(_coin)):
        spec["initContainers"] = init
    if any(container.get("volumeMounts") for container in [*init, *main]):
        spec["volumes"] = [{"name": title, "emptyDir": {}} for title in _VOLUMES]
    if mode is Mode.NATS:
        spec |= draw(_host_network)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": draw(_metadata(mode)), "spec": spec}


def _number_ports(made: list[Json], first: int) -> None:
    """Give each port a number; one is used once in a pod."""
    numbers = itertools.count(first)
    for container in made:
        container |= {"ports": [{"containerPort": next(numbers), **port} for port in container.get("ports") or []]}


_host_network: st.SearchStrategy[Json] = st.sampled_from([{}, {"hostNetwork": False}, {"hostNetwork": True}])
_spec_members = optional(
    restartPolicy=st.sampled_from(["Always", "Never", "OnFailure"]),
    securityContext=st.one_of(st.none(), _pod_security),
    serviceAccountName=labels,
    automountServiceAccountToken=st.booleans(),
    shareProcessNamespace=st.booleans(),
    hostPID=st.booleans(),
    nodeSelector=st.one_of(st.none(), st.sampled_from([{}, {"a": "b"}])),
    imagePullSecrets=st.lists(st.fixed_dictionaries({"name": labels}), max_size=2),
    terminationGracePeriodSeconds=st.integers(0, 100),
    resources=_resources,
)
_sizes = {
    names.ANNOTATION_CPU_REQUEST: st.sampled_from(["1m", "0.1", "3"]),
    names.ANNOTATION_CPU_LIMIT: st.sampled_from(["3", "4.5", "10"]),
    names.ANNOTATION_MEMORY_REQUEST: st.sampled_from(["16Mi", "100M"]),
    names.ANNOTATION_MEMORY_LIMIT: st.sampled_from(["100M", "2Gi"]),
}
_asked = st.fixed_dictionaries(
    {},
    optional={
        **_sizes,
        names.ANNOTATION_PORT: st.integers(60000, 60010).map(str),
        names.ANNOTATION_PERSIST: st.sampled_from(["memory", "disk"]),
        names.ANNOTATION_POLICY: labels,
        names.ANNOTATION_DAPR_APP_ID: labels,
        names.ANNOTATION_DAPR_CONFIG: labels,
        names.ANNOTATION_DAPR_LOG_LEVEL: st.sampled_from(["debug", "error"]),
        f"{names.PREFIX}misspelt": texts,
        "example.com/a~b": texts,
    },
)


_identities: st.SearchStrategy[Json] = st.sampled_from(
    [{"name": "a"}, {"generateName": "a-deployment-6f7d8c9b5-"}, {"name": "n" * 253}]
)
_other_labels: st.SearchStrategy[Json] = st.sampled_from([{}, {"a": "b"}])
_OWNER: Json = {"apiVersion": "batch/v1", "kind": "Job", "name": "backup-29384756", "uid": "1", "controller": True}
_owners: st.SearchStrategy[Json] = st.sampled_from(
    [{}, {"ownerReferences": None}, {"ownerReferences": []}, {"ownerReferences": [_OWNER]}]
)
_no_annotations: st.SearchStrategy[Json] = st.sampled_from([{}, {"annotations": None}, {"annotations": {}}])


@st.composite
def _metadata(draw: st.DrawFn, mode: Mode) -> Json:
    notes: Json = draw(_asked)
    # Dapr is the default: it need not be written.
    if mode is Mode.NATS or draw(_coin):
        notes[names.ANNOTATION_MODE] = mode.value
    return {
        **draw(_identities),
        "labels": {names.LABEL_NETWORK: draw(labels), **draw(_other_labels)},
        **({"annotations": notes} if notes else draw(_no_annotations)),
        **draw(_owners),
    }
