"""The reconciler's environment, read once at start into one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from edgefarm import names
from edgefarm.env import Environment


@dataclass(frozen=True)
class ElectionSettings:
    """How the Lease is held; the usual Kubernetes figures. A holder gives up before a successor may take over."""

    lease_duration: timedelta = timedelta(seconds=15)
    renew_deadline: timedelta = timedelta(seconds=10)
    retry_period: timedelta = timedelta(seconds=2)


@dataclass(frozen=True)
class KubernetesSettings:
    """How the API server is reached: the pod's service account, else a kubeconfig file."""

    service_account_dir: Path | None
    host: str
    port: int
    kubeconfig: Path | None


@dataclass(frozen=True)
class Settings:
    """What the environment says; everything else comes from the ConfigMap `network`."""

    namespace: str
    pod_name: str
    kubernetes: KubernetesSettings
    election: ElectionSettings
    vault_token_file: Path
    health_host: str
    health_port: int
    workers: int
    log_level: str


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the reconciler's environment; raise SettingsError that names every variable that is wrong."""
    env = Environment(environ)
    settings = Settings(
        namespace=env.text("EDGEFARM_NAMESPACE", names.CONTROLLER_NAMESPACE),
        pod_name=env.text("EDGEFARM_POD_NAME"),
        kubernetes=_read_kubernetes(env),
        election=_read_election(env),
        vault_token_file=Path(env.text("EDGEFARM_VAULT_TOKEN_FILE")),
        health_host=env.text("EDGEFARM_HEALTH_HOST", "0.0.0.0"),  # noqa: S104 (the kubelet probes the pod's address)
        health_port=env.port("EDGEFARM_HEALTH_PORT", 8080),
        workers=env.integer("EDGEFARM_WORKERS", 16, low=1, high=256),
        log_level=env.text("EDGEFARM_LOG_LEVEL", "info", choices=("debug", "info", "warning", "error")),
    )
    env.check()
    return settings


def read_kubernetes_settings(environ: Mapping[str, str]) -> KubernetesSettings:
    """Only how the API server is reached; for commands that need nothing else."""
    env = Environment(environ)
    settings = _read_kubernetes(env)
    env.check()
    return settings


def _read_kubernetes(env: Environment) -> KubernetesSettings:
    folder = env.optional("EDGEFARM_SERVICE_ACCOUNT_DIR")
    kubeconfig = env.optional("KUBECONFIG")
    if folder is None and kubeconfig is None:
        env.problem(
            "EDGEFARM_SERVICE_ACCOUNT_DIR",
            "is not set: write the folder of the service account's token and ca.crt, or set KUBECONFIG",
        )
    return KubernetesSettings(
        service_account_dir=Path(folder) if folder else None,
        host=env.text("KUBERNETES_SERVICE_HOST") if folder else "",
        port=env.port("KUBERNETES_SERVICE_PORT", 443),
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
    )


def _read_election(env: Environment) -> ElectionSettings:
    election = ElectionSettings(
        lease_duration=env.duration("EDGEFARM_LEASE_DURATION", "15s"),
        renew_deadline=env.duration("EDGEFARM_LEASE_RENEW_DEADLINE", "10s"),
        retry_period=env.duration("EDGEFARM_LEASE_RETRY_PERIOD", "2s"),
    )
    if not election.retry_period < election.renew_deadline < election.lease_duration:
        env.problem(
            "EDGEFARM_LEASE_RENEW_DEADLINE",
            "must lie between EDGEFARM_LEASE_RETRY_PERIOD and EDGEFARM_LEASE_DURATION",
        )
    return election
