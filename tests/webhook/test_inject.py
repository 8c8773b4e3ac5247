"""The patch, applied: what a pod looks like afterwards, for pods of many shapes."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from edgefarm import __version__, names
from tests.webhook.conftest import SETTINGS, Json, env_of, injected, make_pod, operations_for, sidecar_of
from webhook.annotations import Mode
from webhook.inject import DEFAULT_CONTAINER
from webhook.pod import is_ours
from webhook.template import API_TOKEN_DIR, CREDENTIALS_DIR, HEALTH_PORT_NAME

_APP: Json = {"name": "app", "image": "example/app:1"}
_FULL: Json = {
    "name": "full",
    "image": "example/app:2",
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "ports": [{"name": "http", "containerPort": 8080}],
    "unknownToUs": {"deep": [1, None, "ünï"]},
}
_MESH: Json = {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"}
_DATA: Json = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}

SHAPES: dict[str, Json] = {
    "nothing but a container": make_pod(),
    "mode nats": make_pod(mode=Mode.NATS),
    "null arrays": make_pod(volumes=None, initContainers=None, containers=[_APP | {"env": None, "volumeMounts": None}]),
    "empty arrays": make_pod(volumes=[], initContainers=[], containers=[_APP | {"env": [], "volumeMounts": []}]),
    "volumes and no mounts": make_pod(mode=Mode.NATS, volumes=[_DATA]),
    "several containers": make_pod(mode=Mode.NATS, containers=[_APP, _FULL], volumes=[_DATA]),
    "init containers": make_pod(mode=Mode.NATS, initContainers=[_APP | {"name": "init"}, _MESH], containers=[_APP]),
    "two init containers in mode dapr": make_pod(initContainers=[_MESH, _FULL | {"name": "init"}], volumes=[_DATA]),
    "host network": make_pod(mode=Mode.NATS, hostNetwork=True),
    "a thousand variables": make_pod(
        containers=[_APP | {"env": [{"name": f"V{number}", "value": "x"} for number in range(1000)]}]
    ),
    "a hundred containers": make_pod(mode=Mode.NATS, containers=[_APP | {"name": f"c{n}"} for n in range(100)]),
    "annotations that need escaping": make_pod({"example.com/a~b": "c/d", "ünï": "cödé"}),
    "on disk": make_pod({names.ANNOTATION_PERSIST: "disk"}),
    "no token for the application": make_pod(automountServiceAccountToken=False),
}


@pytest.fixture(params=[True, False], ids=["native", "classic"])
def settings(request: pytest.FixtureRequest) -> Any:
    return replace(SETTINGS, native=request.param)


@pytest.fixture(params=SHAPES)
def pod(request: pytest.FixtureRequest) -> Json:
    return SHAPES[request.param]


def _others(pod: Json, kind: str) -> list[Json]:
    return [item for item in pod["spec"].get(kind) or [] if not is_ours(item)]


def test_a_second_pass_over_the_result_is_empty(pod: Json, settings: Any) -> None:
    assert operations_for(injected(pod, settings), settings) == []


def test_containers_keep_their_order_and_everything_they_had(pod: Json, settings: Any) -> None:
    patched = injected(pod, settings)
    for kind in ("containers", "initContainers"):
        before, after = pod["spec"].get(kind) or [], _others(patched, kind)
        assert [container["name"] for container in after] == [container["name"] for container in before]
        for old, new in zip(before, after, strict=True):
            for member, value in old.items():
                if member in ("env", "volumeMounts"):
                    assert (new.get(member) or [])[: len(value or [])] == (value or [])
                else:
                    assert new[member] == value
    assert patched["spec"]["volumes"][: len(pod["spec"].get("volumes") or [])] == (pod["spec"].get("volumes") or [])


def test_every_application_container_is_told_where_the_network_is(pod: Json, settings: Any) -> None:
    patched = injected(pod, settings)
    status = json.loads(patched["metadata"]["annotations"][names.ANNOTATION_STATUS])
    mode = status["mode"]
    early = _others(patched, "initContainers")
    for container in _others(patched, "containers") + early:
        env = env_of(container)
        paths = {mount["mountPath"]: mount for mount in container.get("volumeMounts") or []}
        if mode == Mode.DAPR:
            assert env["DAPR_HTTP_PORT"] == "3500"
            assert env["DAPR_GRPC_PORT"] == "50001"
            assert env["DAPR_HTTP_ENDPOINT"] == "http://127.0.0.1:3500"
            assert CREDENTIALS_DIR not in paths
            assert "NATS_CREDS" not in env
        else:
            # Where the sidecar does not run (yet) there is no relay: the hub itself is what remains.
            relay = status["sidecar"] == "native" or (status["sidecar"] == "container" and container not in early)
            assert env["NATS_URL"] == ("nats://127.0.0.1:4222" if relay else "tls://nats.example:4222")
            assert env["NATS_CREDS"] == f"{CREDENTIALS_DIR}/nats.creds"
            assert env.get("NATS_CA") == (None if relay else f"{CREDENTIALS_DIR}/ca.crt")
            assert paths[CREDENTIALS_DIR]["readOnly"] is True
            assert "DAPR_HTTP_PORT" not in env


def test_names_stay_unique_and_every_mount_has_its_volume(pod: Json, settings: Any) -> None:
    spec = injected(pod, settings)["spec"]
    containers = spec["containers"] + (spec.get("initContainers") or [])
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert len({container["name"] for container in containers}) == len(containers)
    for container in containers:
        mounts = container.get("volumeMounts") or []
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert {mount["name"] for mount in mounts} <= set(volumes)
        env_of(container)


def test_a_native_sidecar_is_the_first_init_container_and_starts_before_all_others() -> None:
    patched = injected(SHAPES["init containers"])
    sidecar = patched["spec"]["initContainers"][0]
    assert sidecar["name"] == names.SIDECAR_CONTAINER
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/readyz", "port": HEALTH_PORT_NAME}
    assert {"name": HEALTH_PORT_NAME, "containerPort": 3580, "protocol": "TCP"} in sidecar["ports"]
    assert sidecar["command"] == ["python", "-m", "sidecar"]


CLASSIC = replace(SETTINGS, native=False)


@pytest.mark.parametrize("mode", list(Mode))
def test_without_native_sidecars_an_init_container_gets_the_credentials_and_a_container_keeps_them(mode: Mode) -> None:
    patched = injected(make_pod(mode=mode, initContainers=[_APP | {"name": "migrate"}]), CLASSIC)
    first, second = patched["spec"]["initContainers"]
    sidecar, app = patched["spec"]["containers"]
    assert (first["name"], second["name"]) == (names.INIT_CONTAINER, "migrate")
    assert (sidecar["name"], app["name"]) == (names.SIDECAR_CONTAINER, "app")
    assert first["command"] == ["python", "-m", "sidecar", "once"]
    assert not {"restartPolicy", "startupProbe", "ports", "lifecycle"} & first.keys()
    assert first["env"] == sidecar["env"]
    assert without_api_token(first) == sidecar["volumeMounts"]
    assert "restartPolicy" not in sidecar
    # The application finds daprd or the relay listening: kubelet starts it when this command has ended.
    assert sidecar["lifecycle"] == {"postStart": {"exec": {"command": ["python", "-m", "sidecar", "wait"]}}}


def without_api_token(container: Json) -> list[Json]:
    """The mounts without the one that keeps Kubernetes' own token out, which must be there."""
    mounts: list[Json] = container["volumeMounts"]
    ours = {"name": names.VOLUME_TOKEN, "mountPath": API_TOKEN_DIR, "readOnly": True}
    assert ours in mounts
    return [mount for mount in mounts if mount != ours]


def test_with_a_classic_sidecar_kubectl_still_means_the_application() -> None:
    assert injected(make_pod(), CLASSIC)["metadata"]["annotations"][DEFAULT_CONTAINER] == "app"
    chosen = injected(make_pod({DEFAULT_CONTAINER: "other"}), CLASSIC)
    assert chosen["metadata"]["annotations"][DEFAULT_CONTAINER] == "other"


@pytest.mark.parametrize("restart", ["Never", "OnFailure"])
def test_without_native_sidecars_nothing_of_ours_keeps_a_job_in_mode_nats_from_finishing(restart: str) -> None:
    patched = injected(make_pod(mode=Mode.NATS, restartPolicy=restart), CLASSIC)
    assert [container["name"] for container in patched["spec"]["containers"]] == ["app"]
    assert [container["name"] for container in patched["spec"]["initContainers"]] == [names.INIT_CONTAINER]
    assert json.loads(patched["metadata"]["annotations"][names.ANNOTATION_STATUS])["sidecar"] == "init"
    assert DEFAULT_CONTAINER not in patched["metadata"]["annotations"]
    assert operations_for(patched, CLASSIC) == []


@pytest.mark.parametrize("restart", ["Never", "OnFailure", "Always", None])
def test_without_native_sidecars_a_job_in_mode_dapr_ends_the_sidecar_as_dapr_does(restart: str | None) -> None:
    pod = make_pod(**({"restartPolicy": restart} if restart else {}))
    ends = restart in ("Never", "OnFailure")
    env = env_of(sidecar_of(injected(pod, CLASSIC)))
    assert env.get("EDGEFARM_DAPR_SHUTDOWN_ENDS") == ("true" if ends else None)
    assert "EDGEFARM_DAPR_SHUTDOWN_ENDS" not in env_of(sidecar_of(injected(pod)))


def test_the_sidecar_gets_the_environment_of_the_contract() -> None:
    annotations = {names.ANNOTATION_DAPR_APP_PORT: "8080", names.ANNOTATION_DAPR_APP_PROTOCOL: "grpc"}
    settings = replace(SETTINGS, extra_env={"EDGEFARM_DAPRD": "/opt/daprd", "EDGEFARM_LOG_LEVEL": "debug"})
    env = env_of(sidecar_of(injected(make_pod(annotations), settings)))
    assert env == {
        "EDGEFARM_NETWORK": "foo",
        "EDGEFARM_NAMESPACE": "team-a",
        "EDGEFARM_SERVICE_ACCOUNT": "sensor",
        "EDGEFARM_POD_NAME": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        "EDGEFARM_POD_IP": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
        "EDGEFARM_MODE": "dapr",
        "EDGEFARM_VAULT_ADDR": "https://vault.example:8200",
        "EDGEFARM_VAULT_AUTH_MOUNT": "edgefarm-kubernetes",
        "EDGEFARM_VAULT_TRANSIT_MOUNT": "edgefarm-transit",
        "EDGEFARM_VAULT_KV_MOUNT": "edgefarm-kv",
        "EDGEFARM_CA_BUNDLE": SETTINGS.ca_bundle,
        "EDGEFARM_AUDIENCE": "edgefarm-network",
        "EDGEFARM_TOKEN_FILE": "/var/run/secrets/edgefarm.io/token",
        "EDGEFARM_CREDENTIALS_DIR": "/var/run/edgefarm/credentials",
        "EDGEFARM_COMPONENTS_DIR": "/var/run/edgefarm/components",
        "EDGEFARM_LISTEN_ADDRESS": "127.0.0.1",
        "EDGEFARM_HEALTH_PORT": "3580",
        "EDGEFARM_DAPR_HTTP_PORT": "3500",
        "EDGEFARM_DAPR_GRPC_PORT": "50001",
        "EDGEFARM_DAPR_APP_ID": "publisher",
        "EDGEFARM_DAPR_APP_PORT": "8080",
        "EDGEFARM_DAPR_APP_PROTOCOL": "grpc",
        "EDGEFARM_DAPR_LOG_LEVEL": "info",
        "EDGEFARM_LOG_LEVEL": "debug",
        "EDGEFARM_DAPRD": "/opt/daprd",
    }


def test_in_mode_nats_the_sidecar_hears_nothing_of_dapr() -> None:
    patched = injected(make_pod(mode=Mode.NATS))
    env = env_of(sidecar_of(patched))
    assert env["EDGEFARM_MODE"] == "nats"
    assert not [name for name in env if name.startswith(("EDGEFARM_DAPR", "EDGEFARM_COMPONENTS"))]
    assert names.VOLUME_COMPONENTS not in [volume["name"] for volume in patched["spec"]["volumes"]]


def test_the_token_has_its_own_audience_also_when_the_application_gets_none() -> None:
    patched = injected(make_pod(automountServiceAccountToken=False), replace(SETTINGS, audience="vault-of-ours"))
    [volume] = [volume for volume in patched["spec"]["volumes"] if volume["name"] == names.VOLUME_TOKEN]
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"path": "token", "audience": "vault-of-ours", "expirationSeconds": 3600}}
    ]
    assert patched["spec"]["automountServiceAccountToken"] is False
    mounting = [
        container["name"]
        for container in patched["spec"]["containers"] + patched["spec"]["initContainers"]
        if names.VOLUME_TOKEN in [mount["name"] for mount in container.get("volumeMounts", [])]
    ]
    assert mounting == [names.SIDECAR_CONTAINER]


@pytest.mark.parametrize(("persist", "memory"), [("memory", True), ("disk", False)])
def test_credentials_are_kept_in_memory_unless_the_pod_asks_for_disk(persist: str, memory: bool) -> None:
    patched = injected(make_pod({names.ANNOTATION_PERSIST: persist}))
    volumes = {volume["name"]: volume.get("emptyDir") for volume in patched["spec"]["volumes"]}
    assert (volumes[names.VOLUME_CREDENTIALS].get("medium") == "Memory") is memory
    # The component file holds the seed and is made anew at each start: it never needs a disk.
    assert volumes[names.VOLUME_COMPONENTS]["medium"] == "Memory"


def test_what_the_user_set_wins() -> None:
    env = [{"name": "NATS_URL", "value": "nats://mine"}, {"name": "DAPR_HTTP_PORT", "value": "1"}]
    for mode, name, value in ((Mode.NATS, "NATS_URL", "nats://mine"), (Mode.DAPR, "DAPR_HTTP_PORT", "1")):
        patched = injected(make_pod(mode=mode, containers=[_APP | {"env": env}]))
        assert env_of(patched["spec"]["containers"][0])[name] == value


def test_without_a_ca_of_ours_the_application_uses_its_own_roots() -> None:
    patched = injected(make_pod(mode=Mode.NATS), replace(SETTINGS, ca_bundle=None))
    assert "NATS_CA" not in env_of(patched["spec"]["containers"][0])
    assert "EDGEFARM_CA_BUNDLE" not in env_of(sidecar_of(patched))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("pod_security", "user"),
    [
        (None, 65532),
        ({}, 65532),
        ({"runAsUser": 1000}, None),
        ({"runAsUser": 0}, 65532),
        ({"runAsGroup": 3000, "fsGroup": 2000}, 65532),
        ({"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, 65532),
    ],
)
def test_the_sidecar_meets_the_restricted_standard_and_is_never_root(
    pod_security: Json | None, user: int | None, mode: Mode
) -> None:
    security = sidecar_of(injected(make_pod(mode=mode, securityContext=pod_security)))["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security.get("runAsUser") == user


@pytest.mark.parametrize(
    ("pod_security", "expected", "sidecar_group"),
    [
        (None, {"supplementalGroups": [65532]}, 65532),
        ({}, {"supplementalGroups": [65532]}, 65532),
        ({"runAsUser": 1, "runAsGroup": 2}, {"runAsUser": 1, "runAsGroup": 2, "supplementalGroups": [65532]}, 65532),
        ({"supplementalGroups": [5]}, {"supplementalGroups": [5, 65532]}, 65532),
        ({"supplementalGroups": [65532]}, {"supplementalGroups": [65532]}, 65532),
        ({"fsGroup": 2000}, {"fsGroup": 2000}, None),
    ],
)
def test_in_mode_nats_the_application_may_read_the_credentials_whoever_it_runs_as(
    pod_security: Json | None, expected: Json, sidecar_group: int | None
) -> None:
    patched = injected(make_pod(mode=Mode.NATS, securityContext=pod_security))
    assert patched["spec"]["securityContext"] == expected
    assert sidecar_of(patched)["securityContext"].get("runAsGroup") == sidecar_group
    assert operations_for(patched) == []


def test_in_mode_dapr_the_pods_security_context_stays_as_it_is() -> None:
    assert "securityContext" not in injected(make_pod())["spec"]


def test_on_the_host_network_ports_are_the_nodes_so_that_the_scheduler_keeps_two_apart() -> None:
    ports = sidecar_of(injected(SHAPES["host network"]))["ports"]
    assert [(port["hostPort"], port["containerPort"]) for port in ports] == [(3580, 3580), (4222, 4222)]


def test_the_status_says_what_was_done() -> None:
    status = injected(make_pod(mode=Mode.NATS))["metadata"]["annotations"][names.ANNOTATION_STATUS]
    assert json.loads(status) == {
        "version": __version__,
        "network": "foo",
        "mode": "nats",
        "sidecar": "native",
    }


@pytest.mark.parametrize("mode", list(Mode))
def test_a_container_that_another_webhook_added_between_two_rounds_gets_what_the_others_have(mode: Mode) -> None:
    first = injected(make_pod(mode=mode, initContainers=[_MESH]))
    first["spec"]["containers"].append({"name": "late", "image": "late:1"})
    first["spec"]["initContainers"].insert(0, {"name": "late-init", "image": "late:1", "env": [{"name": "A"}]})
    sidecar = sidecar_of(first)
    # Registry mirrors and policy engines alter containers of others: that must not be undone.
    sidecar["image"] = "mirror.example/network:1"
    second = injected(first)
    assert sidecar_of(second) == sidecar
    wanted = env_of(second["spec"]["containers"][0])
    assert env_of(second["spec"]["containers"][1]) == wanted
    assert env_of(second["spec"]["initContainers"][0]) == {"A": None} | wanted
    mounts = [mount["name"] for mount in second["spec"]["containers"][1].get("volumeMounts", [])]
    assert mounts == ([names.VOLUME_CREDENTIALS] if mode is Mode.NATS else [])
    assert operations_for(second) == []


def test_an_annotation_copied_without_the_sidecar_is_written_anew() -> None:
    pod = copy.deepcopy(make_pod({names.ANNOTATION_STATUS: '{"network": "old"}'}))
    status = injected(pod)["metadata"]["annotations"][names.ANNOTATION_STATUS]
    assert json.loads(status)["network"] == "foo"
