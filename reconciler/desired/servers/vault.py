"""Renders OpenBao as the reconciler runs it, and decides which of its replicas is restarted next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edgefarm import names
from edgefarm.units import parse_quantity
from edgefarm.vault.recovery import RaftState, RecoveryStatus
from reconciler.configuration import VAULT_PORT, Configuration
from reconciler.desired.servers import workload
from reconciler.desired.servers.vault_config import CLUSTER_PORT, VARIABLES, SelfInit, files
from reconciler.desired.servers.workload import PodParts, Port, ServerSpec
from reconciler.ports import Object

PORTS: Final = (Port("api", VAULT_PORT, peers=True), Port("cluster", CLUSTER_PORT, published=False, peers=True))
#: Key of the Secrets with the seal's and the recovery key.
UNSEAL_KEY: Final = "key"
RECOVERY_KEY: Final = "keys"

_DATA_DIR: Final = "/openbao/data"
_RUN_DIR: Final = "/openbao/run"
_SEAL_DIR: Final = "/openbao/seal"
_TLS_DIR: Final = "/openbao/tls"
_CONFIG_DIR: Final = "/openbao/config"
#: Time for the active replica to hand over.
_GRACE_SECONDS: Final = 30
#: A standby and one that is not initialised are alive; only what serves is ready.
_READY: Final = "/v1/sys/health?standbyok=true"
_ALIVE: Final = "/v1/sys/health?standbyok=true&sealedcode=204&uninitcode=204"

#: Fills the placeholders of the pod's own file. An address of IPv6 needs brackets before a port.
_CONFIGURE: Final = "\n".join(
    (
        'mkdir -p "$DATA_DIR/raft"',
        'case "$POD_IP" in *:*) POD_IP="[$POD_IP]";; esac',
        "sed "
        + " ".join(f'-e "s|\\${{{name}}}|${name}|g"' for name in VARIABLES)
        + ' "$CONFIG_DIR/$POD_NAME.hcl" > "$RUN_DIR/config.hcl"',
    )
)
#: OpenBao reads certificate and audit file anew when it is told to: once the former has changed, or the latter is full.
_ATTEND: Final = """\
before=$(cksum < "$TLS_DIR/tls.crt")
while sleep 5; do
  pid=$(cat "$RUN_DIR/bao.pid" 2>/dev/null) || continue
  now=$(cksum < "$TLS_DIR/tls.crt")
  size=$(wc -c < "$DATA_DIR/audit.log" 2>/dev/null) || size=0
  [ "$size" -le "$AUDIT_BYTES" ] || mv "$DATA_DIR/audit.log" "$DATA_DIR/audit.log.1"
  if [ "$size" -gt "$AUDIT_BYTES" ] || [ "$now" != "$before" ]; then
    kill -HUP "$pid" && before=$now
  fi
done"""


def server_spec(configuration: Configuration, namespace: str, owners: Sequence[Object]) -> ServerSpec | None:
    """OpenBao as all its objects need it; None when somebody else runs Vault."""
    deployment = configuration.vault.deployment
    if deployment is None:
        return None
    return ServerSpec(names.VAULT_SERVER, namespace, deployment, PORTS, tuple(owners))


def within_what_can_change(spec: ServerSpec, found: Object | None) -> tuple[ServerSpec, str]:
    """What can be done of what is wanted, and why the rest cannot (empty: all can). `found` is the StatefulSet."""
    if found is None:
        return spec, ""
    refusals = []
    running, wanted = int(found["spec"].get("replicas") or 0), spec.deployment.replicas
    if running > wanted:
        spec = replace(spec, deployment=replace(spec.deployment, replicas=running))
        refusals.append(
            f"vault.replicas stays {running}: OpenBao would lose its majority with {wanted}; write {running}, or "
            "restore a backup into a new installation"
        )
    (claim,) = found["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    if parse_quantity(size) != parse_quantity(_volume_size(spec)):
        refusals.append(
            f"vault.storage.size and vault.auditStorage are {_volume_size(spec)} together, but volumes stay {size}, as "
            "they were made: write what adds up to that, or restore a backup into a new installation"
        )
    return spec, "; ".join(refusals)


def config_map(spec: ServerSpec, self_init: SelfInit | None) -> Object:
    """The ConfigMap with the configuration of every replica; `self_init` until OpenBao has been initialised."""
    audit = bool(spec.deployment.extra_storage)
    return workload.config_map(spec, files(spec.namespace, audit=audit, self_init=self_init))


def stateful_set(spec: ServerSpec) -> Object:
    """The StatefulSet. Its pods are replaced by the controller of OpenBao, which knows the active one."""
    audit_bytes = parse_quantity(spec.deployment.extra_storage or "0")
    settled = files(spec.namespace, audit=bool(audit_bytes), self_init=None)
    parts = PodParts(
        init_containers=[_configure(spec)],
        containers=[_openbao(spec), _attendant(spec, audit_bytes // 2)],
        volumes=[
            workload.config_volume(spec),
            workload.tls_volume(spec),
            {"name": "seal", "secret": {"secretName": names.VAULT_UNSEAL_SECRET, "defaultMode": 0o440}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        ],
        # Whether it has been initialised is nothing that a running replica must be told.
        fingerprint="\n".join(text for _, text in sorted(settled.items())),
        grace_seconds=_GRACE_SECONDS,
        storage_size=_volume_size(spec),
        service_account=names.VAULT_SERVER,
        on_delete=True,
    )
    wanted = workload.stateful_set(spec, parts)
    # So that the attendant can signal OpenBao.
    wanted["spec"]["template"]["spec"]["shareProcessNamespace"] = True
    return wanted


def outdated(pods: Iterable[Object], digest: str) -> list[Object]:
    """The pods that are not of the StatefulSet's present template, whose digest is `digest`."""
    return [pod for pod in pods if workload.template_digest(pod) != digest]


def next_restart(pods: Sequence[Object], digest: str, replicas: int, raft: RaftState) -> Object | None:
    """The pod that is replaced next to follow the template; None while that has to wait.

    They go one by one, while all are ready and the others can do without it; the active one goes last, so that nobody
    who is older than what is stored ever becomes active.
    """
    present = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if len(present) < replicas or not all(map(is_ready, present)) or (replicas > 1 and raft.spare < 1):
        return None
    return min(outdated(present, digest), key=lambda pod: (_name(pod) == raft.leader, _name(pod)), default=None)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is Ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def seal_key_lost(pods: Iterable[Object]) -> str:
    """A sentence for whoever has lost the Secret with the key of the seal: a pod keeps what was mounted into it."""
    holder = next((_name(pod) for pod in pods if is_ready(pod)), None)
    copy = f"copy {_SEAL_DIR}/{UNSEAL_KEY} out of the pod {holder} before it ends, or " if holder else ""
    return (
        f"the Secret {names.VAULT_UNSEAL_SECRET} is gone: {copy}restore it from a backup; without its key nobody can "
        "read what OpenBao has stored"
    )


@dataclass(frozen=True)
class RecoveryStep:
    """What is to be done about the recovery key: nothing, or to `verify` the stored one, or to `make` one (after what
    is pending was cancelled). `problem`: it is in effect, but nobody has it."""

    make: bool = False
    cancel: bool = False
    verify: bool = False
    problem: str = ""


def recovery_step(status: RecoveryStatus, stored: bool, refused: bool = False) -> RecoveryStep:
    """The next step; `stored`: the Secret exists. `refused`: what it holds was shown, and is not the pending key."""
    if status.in_effect:
        if stored:
            return RecoveryStep()
        return RecoveryStep(
            problem=f"the Secret {names.VAULT_RECOVERY_SECRET} is gone, while its key is in effect: restore it from a "
            "backup, without it nobody can recover OpenBao"
        )
    if status.pending and stored and not refused:
        return RecoveryStep(verify=True)
    return RecoveryStep(make=True, cancel=status.pending)


def _configure(spec: ServerSpec) -> Object:
    """Writes the pod's own configuration. The image's shell does it, as in OpenBao's own chart: our images change with
    every version of ours, and would restart OpenBao each time."""
    return {
        "name": "configure",
        "command": ["/bin/sh", "-ec", _CONFIGURE],
        **_container(spec, {"cpu": "10m", "memory": "16Mi"}),
        "volumeMounts": [
            {"name": workload.CONFIG_VOLUME, "mountPath": _CONFIG_DIR, "readOnly": True},
            {"name": "run", "mountPath": _RUN_DIR},
            *_MOUNTS,
        ],
    }


def _openbao(spec: ServerSpec) -> Object:
    def healthy(path: str, **timing: int) -> Object:
        return {"httpGet": {"path": path, "port": "api", "scheme": "HTTPS"}, "timeoutSeconds": 5, **timing}

    container = _container(spec, {"cpu": "100m", "memory": "256Mi"})
    return {
        "name": "openbao",
        "command": ["bao", "server", f"-config={_RUN_DIR}/config.hcl"],
        "workingDir": _DATA_DIR,
        **container,
        "ports": workload.container_ports(spec),
        "readinessProbe": healthy(_READY, periodSeconds=5),
        "livenessProbe": healthy(_ALIVE, periodSeconds=10, failureThreshold=6, initialDelaySeconds=30),
        "resources": dict(spec.deployment.pod.resources) or container["resources"],
        "volumeMounts": [{"name": "run", "mountPath": _RUN_DIR}, *_MOUNTS],
    }


def _attendant(spec: ServerSpec, audit_bytes: int) -> Object:
    container = _container(spec, {"cpu": "10m", "memory": "16Mi"})
    container["env"] = [*container["env"], {"name": "AUDIT_BYTES", "value": str(audit_bytes)}]
    return {
        "name": "attendant",
        "command": ["/bin/sh", "-c", _ATTEND],
        **container,
        "volumeMounts": [{"name": "run", "mountPath": _RUN_DIR}, *_MOUNTS],
    }


_MOUNTS: Final = (
    {"name": workload.DATA_VOLUME, "mountPath": _DATA_DIR},
    {"name": "seal", "mountPath": _SEAL_DIR, "readOnly": True},
    {"name": workload.TLS_VOLUME, "mountPath": _TLS_DIR, "readOnly": True},
)


def _container(spec: ServerSpec, requests: Mapping[str, str]) -> Object:
    folders = {"DATA_DIR": _DATA_DIR, "RUN_DIR": _RUN_DIR, "SEAL_DIR": _SEAL_DIR, "TLS_DIR": _TLS_DIR}
    return {
        "image": spec.deployment.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "POD_NAME", "valueFrom": workload.from_pod("metadata.name")},
            {"name": "POD_IP", "valueFrom": workload.from_pod("status.podIP")},
            {"name": "CONFIG_DIR", "value": _CONFIG_DIR},
            *({"name": name, "value": folder} for name, folder in folders.items()),
        ],
        "resources": {"requests": dict(requests)},
        "securityContext": workload.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _volume_size(spec: ServerSpec) -> str:
    """Data and audit log, in a form that the API server leaves as it is."""
    sizes = (spec.deployment.storage_size, spec.deployment.extra_storage)
    total = sum(parse_quantity(size) for size in sizes if size)
    for unit, size in (("Gi", 2**30), ("Mi", 2**20)):
        if total % size == 0:
            return f"{total // size}{unit}"
    return str(total)
