"""The restricted Pod Security Standard, as far as a pod's JSON can break it.

Written from https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Linux pods).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: Json) -> list[str]:
    """Every way in which the pod is not restricted; empty when the namespace would admit it."""
    return [*_of_pod(pod["spec"]), *(found for item in _containers(pod["spec"]) for found in _of(item, pod["spec"]))]


def _containers(spec: Json) -> list[Json]:
    return [*(spec.get("initContainers") or []), *spec["containers"], *(spec.get("ephemeralContainers") or [])]


def _of_pod(spec: Json) -> Iterator[str]:
    for member in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(member):
            yield member
    for volume in spec.get("volumes") or []:
        if not _VOLUMES & volume.keys() and len(volume) > 1:
            yield f"volume {volume['name']}"
    security = spec.get("securityContext") or {}
    for sysctl in security.get("sysctls") or []:
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _labels(security, "pod")
    if security.get("runAsUser") == 0:
        yield "pod runs as root"


def _of(container: Json, spec: Json) -> Iterator[str]:
    name, pod = container["name"], spec.get("securityContext") or {}
    security = container.get("securityContext") or {}
    capabilities = security.get("capabilities") or {}
    seccomp = (security.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
    non_root = security.get("runAsNonRoot", pod.get("runAsNonRoot"))
    checks = {
        "is privileged": security.get("privileged"),
        "may escalate": security.get("allowPrivilegeEscalation") is not False,
        "does not drop ALL": "ALL" not in (capabilities.get("drop") or []),
        "adds capabilities": set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"},
        "may be root": non_root is not True,
        "runs as root": security.get("runAsUser") == 0,
        "has no seccomp profile": seccomp not in ("RuntimeDefault", "Localhost"),
        "unmasks /proc": security.get("procMount", "Default") != "Default",
        "has a host port": any(port.get("hostPort") for port in container.get("ports") or []),
        "probes another host": any(_hosts(container)),
    }
    yield from (f"{name} {what}" for what, wrong in checks.items() if wrong)
    yield from _labels(security, name)


def _hosts(container: Json) -> Iterator[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")]
    for handler in [*handlers, lifecycle.get("postStart"), lifecycle.get("preStop")]:
        for kind in ("httpGet", "tcpSocket"):
            yield ((handler or {}).get(kind) or {}).get("host") or ""


def _labels(security: Json, whose: str) -> Iterator[str]:
    selinux = security.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{whose} has SELinux options"
    if (security.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{whose} is not confined by AppArmor"
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{whose} is a host process"
