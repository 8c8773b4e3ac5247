"""Pods of every shape that Kubernetes admits, as test data: each is valid, labelled, and must be injected."""

from __future__ import annotations

from typing import Any, Final

from edgefarm import names

Json = dict[str, Any]

_RESTRICTED: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(name: str = "app", **members: Any) -> Json:
    """A container."""
    return {"name": name, "image": f"registry.example/{name}:1", **members}


def pod(*containers: Json, metadata: Json | None = None, **spec: Any) -> Json:
    """A labelled pod; `spec` and `metadata` add members."""
    meta = {"name": "publisher", **(metadata or {})}
    meta["labels"] = {names.LABEL_NETWORK: "foo", **meta.get("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def owned(kind: str, api_version: str, name: str, suffix: str = "x7k2p", **spec: Any) -> Json:
    """A pod as the controller of a workload makes it."""
    owner = {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": "0b3c8f0e-5d2f-4b7e-9a4c-5b8f0d2c1e11",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {"generateName": f"{name}-", "name": f"{name}-{suffix}", "ownerReferences": [owner]}
    return pod(metadata=metadata, **spec)


def _names() -> dict[str, Json]:
    long = owned("ReplicaSet", "apps/v1", "a-deployment-whose-name-takes-all-that-a-label-allows-0123456-6f7d8c9b5")
    long["metadata"]["labels"]["pod-template-hash"] = "6f7d8c9b5"
    del long["metadata"]["name"]
    return {
        "a bare pod without namespace": pod(),
        "a pod that its namespace is written into": pod(metadata={"namespace": "team-a"}),
        "a generated name with a long owner": long,
        "a name of 63 characters": pod(metadata={"name": "n" * 63}),
        "a name of 253 characters with dots": pod(metadata={"name": ".".join(["n" * 62] * 4) + "x"}),
        "unicode in every text": pod(
            container(
                env=[{"name": "IN ASCII", "value": "héllo 世界 🌍 \u202e"}],
                command=["/bin/größe", "--name=Ünï"],
                args=["世界"],
                workingDir="/тест",
            ),
            metadata={"annotations": {"example.com/note": '🌍 ~1/~0 \u0000 \\ "'}},
        ),
        "annotations that a JSON pointer must escape": pod(metadata={"annotations": {"example.com/a": "~1/~0"}}),
        "null where there could be lists": pod(
            container(env=None, volumeMounts=None, ports=None),
            metadata={"annotations": None, "ownerReferences": None},
            initContainers=None,
            volumes=None,
            securityContext=None,
            nodeSelector=None,
        ),
        "empty lists and objects": pod(
            container(env=[], volumeMounts=[], ports=[], resources={}, securityContext={}),
            metadata={"annotations": {}},
            initContainers=[],
            volumes=[],
            securityContext={},
            nodeSelector={},
        ),
    }


def _workloads() -> dict[str, Json]:
    stateful = owned("StatefulSet", "apps/v1", "store", "0", hostname="store-0", subdomain="store")
    stateful["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-store-0"}}]
    stateful["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/var/lib/store"}]
    tolerations = [{"operator": "Exists", "effect": "NoSchedule"}, {"key": "edge", "operator": "Equal", "value": "x"}]
    target = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": target}}
    return {
        "the pod of a StatefulSet": stateful,
        "the pod of a DaemonSet": owned(
            "DaemonSet", "apps/v1", "collector", tolerations=tolerations, affinity=affinity
        ),
        "the pod of a Job that never restarts": owned("Job", "batch/v1", "import", restartPolicy="Never"),
        "the pod of a Job that restarts on failure": owned("Job", "batch/v1", "import", restartPolicy="OnFailure"),
        "the pod of a CronJob": owned(
            "Job", "batch/v1", "backup-29384756", restartPolicy="OnFailure", activeDeadlineSeconds=600
        ),
        "a pod with everything of scheduling": pod(
            priorityClassName="high",
            schedulerName="other",
            runtimeClassName="kata",
            schedulingGates=[{"name": "example.com/wait"}],
            readinessGates=[{"conditionType": "example.com/ready"}],
            topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            hostAliases=[{"ip": "10.0.0.1", "hostnames": ["db"]}],
            dnsPolicy="None",
            dnsConfig={"nameservers": ["10.0.0.10"]},
            enableServiceLinks=False,
            terminationGracePeriodSeconds=0,
            preemptionPolicy="Never",
            nodeSelector={"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"},
            os={"name": "linux"},
        ),
    }


def _containers() -> dict[str, Json]:
    full = container(
        "full",
        command=["run"],
        args=["--fast"],
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
            {"name": "D", "value": "$(A)-$(DAPR_HTTP_PORT)"},
            {"name": "E"},
        ],
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "X_"}],
        volumeMounts=[
            {"name": "data", "mountPath": "/data"},
            {"name": "data", "mountPath": "/var/run/edgefarm/other", "subPath": "x"},
            {"name": "data", "mountPath": "/var/run"},
        ],
        stdin=True,
        tty=True,
        terminationMessagePath="/dev/termination",
        lifecycle={"preStop": {"sleep": {"seconds": 3}}, "postStart": {"exec": {"command": ["true"]}}},
    )
    initial = {member: value for member, value in full.items() if member != "lifecycle"}
    block = container("block", volumeDevices=[{"name": "disk", "devicePath": "/dev/xvda"}])
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}},
        {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "other"}}]}},
    ]
    native = container("logs", restartPolicy="Always", startupProbe={"exec": {"command": ["true"]}})
    return {
        "several containers of all kinds": pod(container(), full, block, container("bare"), volumes=volumes),
        "one init container": pod(initContainers=[container("migrate")]),
        "two init containers, one with everything": pod(
            initContainers=[container("migrate"), initial], volumes=volumes, containers=[container()]
        ),
        "native sidecars of others around an init container": pod(
            initContainers=[native, container("migrate"), {**native, "name": "proxy"}]
        ),
        "a container that sets our variables itself": pod(
            container(env=[{"name": "NATS_URL", "value": "nats://mine"}, {"name": "DAPR_HTTP_PORT", "value": "1"}])
        ),
        "two thousand variables": pod(container(env=[{"name": f"V{i}", "value": "x" * 20} for i in range(2000)])),
        "a hundred containers": pod(
            *(container(f"c{i}") for i in range(60)), initContainers=[container(f"i{i}") for i in range(40)]
        ),
    }


def _networking() -> dict[str, Json]:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5}
    probed = container(
        ports=[{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
        startupProbe={"tcpSocket": {"port": 8080}},
        livenessProbe=probe,
        readinessProbe={"grpc": {"port": 9090}, "initialDelaySeconds": 1},
    )
    return {
        "all probes and named ports": pod(probed),
        "UDP and SCTP on the numbers of our ports": pod(
            container(
                ports=[
                    {"containerPort": 3580, "protocol": "UDP"},
                    {"containerPort": 3500, "protocol": "SCTP"},
                    {"containerPort": 50001, "protocol": "UDP"},
                ]
            )
        ),
        "a host port": pod(container(ports=[{"containerPort": 80, "hostPort": 3580}])),
        "the network of the node": pod(container(ports=[{"containerPort": 80, "hostPort": 80}]), hostNetwork=True),
        "the process ids of the node": pod(hostPID=True, hostIPC=True),
        "Istio's ordinary proxy": pod(
            container(), container("istio-proxy"), initContainers=[container("istio-init"), container("migrate")]
        ),
        "Istio's native proxy": pod(
            initContainers=[
                container("istio-validation"),
                container("istio-proxy", restartPolicy="Always"),
                container("migrate"),
            ]
        ),
        "Linkerd's native proxy at the end": pod(
            initContainers=[
                container("migrate"),
                container("linkerd-init"),
                container("linkerd-proxy", restartPolicy="Always"),
            ]
        ),
    }


def _security() -> dict[str, Json]:
    plain = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    strict = container(securityContext={**_RESTRICTED, "readOnlyRootFilesystem": True})
    return {
        "no token for the application": pod(automountServiceAccountToken=False, serviceAccountName="sensor"),
        "the old name of the service account": pod(serviceAccount="sensor"),
        "pull secrets": pod(imagePullSecrets=[{"name": "registry"}]),
        "restricted by its containers": pod(strict),
        "restricted by the pod": pod(
            container(securityContext={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}),
            securityContext=plain,
        ),
        "restricted as a certain user": pod(
            strict, securityContext={**plain, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
        ),
        "restricted with an init container": pod(
            strict, initContainers=[{**strict, "name": "migrate"}], volumes=[{"name": "tmp", "emptyDir": {}}]
        ),
        "restricted with supplemental groups": pod(
            strict, securityContext={"supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict"}
        ),
        "root": pod(container(securityContext={"privileged": True}), securityContext={"runAsUser": 0}),
        "capabilities and SELinux": pod(
            container(securityContext={"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
            securityContext={
                "seLinuxOptions": {"level": "s0:c1"},
                "sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}],
            },
        ),
        "a shared process namespace": pod(shareProcessNamespace=True),
        "a user namespace": pod(hostUsers=False),
    }


def _sizes() -> dict[str, Json]:
    whole = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    return {
        "empty resources": pod(container(resources={})),
        "guaranteed resources": pod(container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})),
        "resources of the pod as a whole": pod(container(resources={}), resources=whole),
        "memory of the pod as a whole": pod(resources={"limits": {"memory": "64Mi"}}),
        "claims and huge pages": pod(
            container(
                resources={
                    "claims": [{"name": "gpu"}],
                    "limits": {"hugepages-2Mi": "4Mi", "memory": "64Mi", "example.com/x": "1"},
                }
            ),
            resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}],
        ),
    }


#: Title → pod. None says anything about the mode; those of `ONLY_NATS` are denied in mode dapr.
SHAPES: Final[dict[str, Json]] = {
    **_names(),
    **_workloads(),
    **_containers(),
    **_networking(),
    **_security(),
    **_sizes(),
}
ONLY_NATS: Final = frozenset({"the network of the node"})
