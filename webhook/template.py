"""What the webhook adds to a pod: the sidecar's container, its volumes, and the application's environment.

Plain functions of the plan and the settings; where it goes in the pod is the business of `inject`.
docs/injection.md says why each member is there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from edgefarm import __version__, names
from webhook import resources
from webhook.annotations import Mode, Options
from webhook.pod import Pod
from webhook.settings import Injection

Json = dict[str, Any]

TOKEN_DIR: Final = "/var/run/secrets/edgefarm.io"
#: Where Kubernetes puts its own API token into every container that mounts nothing there.
API_TOKEN_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
CREDENTIALS_DIR: Final = "/var/run/edgefarm/credentials"
COMPONENTS_DIR: Final = "/var/run/edgefarm/components"
LISTEN_ADDRESS: Final = "127.0.0.1"
DAPR_CONFIG_DIR: Final = "/etc/edgefarm/dapr"
HEALTH_PORT_NAME: Final = "network-health"
DAPR_HTTP_PORT: Final = 3500
DAPR_GRPC_PORT: Final = 50001
#: The numeric user of the sidecar where the pod names none: kubelet cannot prove that a named one is not root.
SIDECAR_USER: Final = 65532
#: The group that owns the credentials in mode nats, and that the application's containers are put into.
CREDENTIALS_GROUP: Final = 65532
#: Kubernetes' own default for bound tokens; kubelet renews the file well before.
TOKEN_SECONDS: Final = 3600

_COMMAND: Final = ("python", "-m", "sidecar")
_SIZES: Final = {
    Mode.NATS: {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "96Mi"}},
    Mode.DAPR: {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
}


class Form(StrEnum):
    """How the sidecar comes into the pod."""

    #: An init container that goes on running; Kubernetes ends it after the application.
    NATIVE = "native"
    #: An init container that gets the first credentials, and an ordinary container that keeps them fresh.
    CONTAINER = "container"
    #: Only that init container, so that nothing keeps a Job from finishing.
    INIT = "init"


@dataclass(frozen=True)
class Plan:
    """Everything about one pod that the injection depends on."""

    network: str
    namespace: str
    service_account: str
    app_id: str
    options: Options
    form: Form
    #: The pod ends by itself, as those of a Job do.
    runs_to_completion: bool = False


@dataclass(frozen=True)
class Traits:
    """What of the pod itself the additions depend on, beside the plan."""

    host_network: bool
    #: The pod names a user other than root; the sidecar then takes it, too.
    own_user: bool
    #: The pod's volumes belong to a group that all its containers are in.
    own_group: bool
    #: Pod-level resources, which most pods have not: too seldom to make them a part of the hash.
    resources: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, pod: Pod) -> Traits:
        spec = pod["spec"]
        security = spec.get("securityContext") or {}
        return cls(
            host_network=bool(spec.get("hostNetwork")),
            own_user=bool(security.get("runAsUser")),
            own_group=security.get("fsGroup") is not None,
            resources=spec.get("resources") or {},
        )


#: Of a list in a pod: as JSON, or as the text of it.
Item: TypeAlias = Json | msgspec.Raw


class Additions(NamedTuple):
    """Everything that may go into a pod. Requests share it: copy a part before changing it."""

    #: By name, mounts by their path: what tells the items of a list apart.
    environment: Mapping[str, Item]
    #: The same for init containers.
    init_environment: Mapping[str, Item]
    mounts: Mapping[str, Item]
    volumes: Mapping[str, Item]
    init_container: Item | None
    sidecar: Item | None
    status: str
    #: The application's containers must be put into CREDENTIALS_GROUP.
    group: bool


def additions(plan: Plan, settings: Injection, traits: Traits) -> Additions:
    """All that the plan asks for."""
    mode, relay = plan.options.mode, has_relay(plan)
    # Where the sidecar is an ordinary container it does not run yet when init containers do.
    early = relay and plan.form is Form.NATIVE
    return Additions(
        environment={item["name"]: item for item in application_env(plan, settings, relay=relay)},
        init_environment={item["name"]: item for item in application_env(plan, settings, relay=early)},
        mounts={item["mountPath"]: item for item in application_mounts(mode)},
        volumes={item["name"]: item for item in volumes(plan, settings)},
        init_container=None if plan.form is Form.NATIVE else _init_container(plan, settings, traits),
        sidecar=None if plan.form is Form.INIT else _sidecar(plan, settings, traits),
        status=status(plan),
        group=needs_group(mode, traits),
    )


@functools.lru_cache(maxsize=512)
def encoded_additions(plan: Plan, settings: Injection, traits: Traits) -> Additions:
    """The same with every item as JSON text. Replicas of one workload ask for the same: it is made once for them."""
    plain = additions(plan, settings, traits)

    def encoded(item: Item) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(item))

    return plain._replace(
        environment={name: encoded(item) for name, item in plain.environment.items()},
        init_environment={name: encoded(item) for name, item in plain.init_environment.items()},
        mounts={path: encoded(item) for path, item in plain.mounts.items()},
        volumes={name: encoded(item) for name, item in plain.volumes.items()},
        init_container=plain.init_container and encoded(plain.init_container),
        sidecar=plain.sidecar and encoded(plain.sidecar),
    )


def form_of(mode: Mode, settings: Injection, *, runs_to_completion: bool) -> Form:
    """The form of the sidecar: a pod that runs to completion must not wait for an ordinary container of ours."""
    if settings.native:
        return Form.NATIVE
    return Form.INIT if mode is Mode.NATS and runs_to_completion else Form.CONTAINER


def has_relay(plan: Plan) -> bool:
    """Whether the sidecar offers NATS on localhost; it must run as long as the application does."""
    return plan.options.mode is Mode.NATS and plan.options.nats_relay and plan.form is not Form.INIT


def ports_of(plan: Plan) -> tuple[int, ...]:
    """TCP ports of the pod that the sidecar listens on."""
    options = plan.options
    if options.mode is Mode.DAPR:
        return (options.health_port, DAPR_HTTP_PORT, DAPR_GRPC_PORT)
    return (options.health_port, options.nats_port) if has_relay(plan) else (options.health_port,)


def status(plan: Plan) -> str:
    """Value of the status annotation: what was done, and by which version."""
    value = {"version": __version__, "network": plan.network, "mode": plan.options.mode, "sidecar": plan.form}
    return msgspec.json.encode(value).decode()


def application_env(plan: Plan, settings: Injection, *, relay: bool) -> list[Json]:
    """Environment that tells the application where the network is: with `relay`, on localhost."""
    if plan.options.mode is Mode.DAPR:
        return _env(
            {
                "DAPR_HTTP_PORT": str(DAPR_HTTP_PORT),
                "DAPR_GRPC_PORT": str(DAPR_GRPC_PORT),
                "DAPR_HTTP_ENDPOINT": f"http://{LISTEN_ADDRESS}:{DAPR_HTTP_PORT}",
                "DAPR_GRPC_ENDPOINT": f"http://{LISTEN_ADDRESS}:{DAPR_GRPC_PORT}",
            }
        )
    # Without a CA of ours the server has a public certificate, and the client must use its own roots.
    ca = f"{CREDENTIALS_DIR}/ca.crt" if settings.ca_bundle else None
    return _env(
        {
            "NATS_URL": f"nats://{LISTEN_ADDRESS}:{plan.options.nats_port}" if relay else settings.nats_url,
            "NATS_CREDS": f"{CREDENTIALS_DIR}/nats.creds",
            "NATS_CA": None if relay else ca,
        }
    )


def application_mounts(mode: Mode) -> list[Json]:
    """Volumes that the application's containers see: in mode dapr none, for daprd holds the credentials."""
    if mode is Mode.DAPR:
        return []
    return [{"name": names.VOLUME_CREDENTIALS, "mountPath": CREDENTIALS_DIR, "readOnly": True}]


def volumes(plan: Plan, settings: Injection) -> list[Json]:
    """The sidecar's volumes: its token, its credentials and, in mode dapr, the Dapr component."""
    token = {"path": "token", "audience": settings.audience, "expirationSeconds": TOKEN_SECONDS}
    in_memory = {"medium": "Memory", "sizeLimit": "4Mi"}
    credentials = {"sizeLimit": "4Mi"} if plan.options.persist_on_disk else in_memory
    added: list[Json] = [
        {
            "name": names.VOLUME_TOKEN,
            "projected": {"defaultMode": 0o444, "sources": [{"serviceAccountToken": token}]},
        },
        {"name": names.VOLUME_CREDENTIALS, "emptyDir": credentials},
    ]
    if plan.options.mode is Mode.DAPR:
        added.append({"name": names.VOLUME_COMPONENTS, "emptyDir": in_memory})
    if plan.options.mode is Mode.DAPR and plan.options.dapr_config is not None:
        item = {"key": "config.yaml", "path": "config.yaml"}
        added.append(
            {
                "name": names.VOLUME_DAPR_CONFIG,
                "configMap": {"name": plan.options.dapr_config, "items": [item], "defaultMode": 0o444},
            }
        )
    return added


def _sidecar(plan: Plan, settings: Injection, traits: Traits) -> Json:
    """The sidecar's container, native or ordinary."""
    ports: list[Json] = [{"name": HEALTH_PORT_NAME, "containerPort": plan.options.health_port, "protocol": "TCP"}]
    if traits.host_network:
        # Written out, the scheduler keeps two such pods off the same node.
        ports = [{"containerPort": number, "protocol": "TCP", "hostPort": number} for number in ports_of(plan)]
        ports[0]["name"] = HEALTH_PORT_NAME
    container = _container(names.SIDECAR_CONTAINER, [], plan, settings, traits) | {
        "ports": ports,
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": HEALTH_PORT_NAME},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 600,
        },
    }
    if plan.form is Form.NATIVE:
        container["restartPolicy"] = "Always"
    elif plan.options.mode is Mode.DAPR or has_relay(plan):
        # kubelet starts the containers one after the other, and the next one only when this has ended.
        container["lifecycle"] = {"postStart": {"exec": {"command": [*_COMMAND, "wait"]}}}
    return container


def _init_container(plan: Plan, settings: Injection, traits: Traits) -> Json:
    """The init container that ends as soon as there are credentials, for clusters without native sidecars."""
    return _container(names.INIT_CONTAINER, ["once"], plan, settings, traits)


def _container(name: str, arguments: list[str], plan: Plan, settings: Injection, traits: Traits) -> Json:
    mode = plan.options.mode
    return {
        "name": name,
        "image": plan.options.image or settings.image,
        # An edge node must be able to start the pod again while it is cut off, whatever the image's tag is.
        "imagePullPolicy": "IfNotPresent",
        "command": [*_COMMAND, *arguments],
        "env": sidecar_env(plan, settings),
        "resources": resources.merge(_SIZES[mode], plan.options.sizes, traits.resources),
        "securityContext": _security(mode, traits),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*_sidecar_mounts(plan.options), *_in_place_of_the_api_token(name, plan.form)],
    }


def sidecar_env(plan: Plan, settings: Injection) -> list[Json]:
    """The sidecar's environment as docs/architecture.md names it; `extra_env` of the settings wins."""
    vault = settings.vault
    variables: dict[str, str | Json | None] = {
        "EDGEFARM_NETWORK": plan.network,
        "EDGEFARM_NAMESPACE": plan.namespace,
        "EDGEFARM_SERVICE_ACCOUNT": plan.service_account,
        "EDGEFARM_POD_NAME": _from_pod("metadata.name"),
        "EDGEFARM_POD_IP": _from_pod("status.podIP"),
        "EDGEFARM_MODE": plan.options.mode,
        "EDGEFARM_VAULT_ADDR": vault.address,
        "EDGEFARM_VAULT_AUTH_MOUNT": vault.auth_mount,
        "EDGEFARM_VAULT_TRANSIT_MOUNT": vault.transit_mount,
        "EDGEFARM_VAULT_KV_MOUNT": vault.kv_mount,
        "EDGEFARM_VAULT_NAMESPACE": vault.namespace,
        "EDGEFARM_CA_BUNDLE": settings.ca_bundle,
        "EDGEFARM_AUDIENCE": settings.audience,
        "EDGEFARM_TOKEN_FILE": f"{TOKEN_DIR}/token",
        "EDGEFARM_CREDENTIALS_DIR": CREDENTIALS_DIR,
        "EDGEFARM_HEALTH_PORT": str(plan.options.health_port),
        "EDGEFARM_POLICY": plan.options.policy,
        "EDGEFARM_LOG_LEVEL": settings.log_level,
    }
    if plan.options.mode is Mode.DAPR:
        variables |= _dapr_env(plan)
    elif has_relay(plan):
        variables |= {"EDGEFARM_LISTEN_ADDRESS": LISTEN_ADDRESS, "EDGEFARM_NATS_PORT": str(plan.options.nats_port)}
    return _env(variables | dict(settings.extra_env))


def _dapr_env(plan: Plan) -> dict[str, str | Json | None]:
    options = plan.options
    # An ordinary container keeps its pod from finishing: there Dapr's own shutdown call ends the sidecar, too.
    ends = plan.form is Form.CONTAINER and plan.runs_to_completion
    return {
        "EDGEFARM_COMPONENTS_DIR": COMPONENTS_DIR,
        "EDGEFARM_LISTEN_ADDRESS": LISTEN_ADDRESS,
        "EDGEFARM_DAPR_HTTP_PORT": str(DAPR_HTTP_PORT),
        "EDGEFARM_DAPR_GRPC_PORT": str(DAPR_GRPC_PORT),
        "EDGEFARM_DAPR_APP_ID": plan.app_id,
        "EDGEFARM_DAPR_APP_PORT": _text(options.app_port),
        "EDGEFARM_DAPR_APP_PROTOCOL": options.app_protocol,
        "EDGEFARM_DAPR_APP_MAX_CONCURRENCY": _text(options.app_max_concurrency),
        "EDGEFARM_DAPR_CONFIG": f"{DAPR_CONFIG_DIR}/config.yaml" if options.dapr_config else None,
        "EDGEFARM_DAPR_API_LOGGING": "true" if options.api_logging else None,
        "EDGEFARM_DAPR_LOG_LEVEL": options.log_level,
        "EDGEFARM_DAPR_MAX_BODY_SIZE": options.max_body_size,
        "EDGEFARM_DAPR_SHUTDOWN_SECONDS": _text(options.shutdown_seconds),
        "EDGEFARM_DAPR_SHUTDOWN_ENDS": "true" if ends else None,
    }


def _sidecar_mounts(options: Options) -> list[Json]:
    mounts: list[Json] = [
        {"name": names.VOLUME_TOKEN, "mountPath": TOKEN_DIR, "readOnly": True},
        {"name": names.VOLUME_CREDENTIALS, "mountPath": CREDENTIALS_DIR},
    ]
    if options.mode is Mode.DAPR:
        mounts.append({"name": names.VOLUME_COMPONENTS, "mountPath": COMPONENTS_DIR})
    if options.mode is Mode.DAPR and options.dapr_config is not None:
        mounts.append({"name": names.VOLUME_DAPR_CONFIG, "mountPath": DAPR_CONFIG_DIR, "readOnly": True})
    return mounts


def _in_place_of_the_api_token(name: str, form: Form) -> list[Json]:
    """Our own token once more, where Kubernetes' ServiceAccount admission would add the pod's API token.

    Not for an ordinary container: it is the first one, and the injector of Vault's agent takes what the first
    ordinary container mounts there for the token that it logs in with.
    """
    if name == names.SIDECAR_CONTAINER and form is not Form.NATIVE:
        return []
    return [{"name": names.VOLUME_TOKEN, "mountPath": API_TOKEN_DIR, "readOnly": True}]


def needs_group(mode: Mode, traits: Traits) -> bool:
    """Whether the application's containers must be put into CREDENTIALS_GROUP to read the credentials (0440).

    With an fsGroup kubelet gives the volume to that group, which all containers are in already. An fsGroup of ours
    would change the owner of the user's own volumes; a supplemental group changes nothing else.
    """
    return mode is Mode.NATS and not traits.own_group


def _security(mode: Mode, traits: Traits) -> Json:
    """Passes the restricted Pod Security Standard whatever the pod says.

    The pod's own user is kept, because a namespace may allow only certain users; root is not, because the sidecar
    must not be it. kubelet makes a projected token readable for the containers that mount it, whoever they run as.
    """
    security: Json = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if not traits.own_user:
        security["runAsUser"] = SIDECAR_USER
    if needs_group(mode, traits):
        security["runAsGroup"] = CREDENTIALS_GROUP
    return security


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _from_pod(path: str) -> Json:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def _env(variables: Mapping[str, str | Json | None]) -> list[Json]:
    return [
        {"name": name, "value" if isinstance(value, str) else "valueFrom": value}
        for name, value in variables.items()
        if value is not None
    ]
