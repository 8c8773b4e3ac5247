"""What an EdgeNetwork's DaemonSet looks like, and when the one that the API server holds is as it shall be."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.vault import VaultSettings
from reconciler.configuration import LeafConfiguration, NatsConfiguration, VaultConfiguration
from reconciler.desired import leaf_workload
from reconciler.desired.comparison import is_as_desired
from reconciler.ports import Object
from tests.reconciler.objects import configuration, edge_network


def render(conflicts: tuple[str, ...] = (), **spec: Any) -> Object:
    edge = EdgeNetwork.parse(edge_network(**{"nodeSelector": {"role": "edge"}, **spec}))
    return leaf_workload.daemon_set(edge, conflicts, configuration())


def pod_of(daemon_set: Object) -> Object:
    spec: Object = daemon_set["spec"]["template"]["spec"]
    return spec


def containers_of(daemon_set: Object) -> dict[str, Object]:
    pod = pod_of(daemon_set)
    return {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}


def environment_of(container: Object) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_equal_edge_networks_give_equal_workloads_to_the_byte() -> None:
    assert json.dumps(render(("b", "a"))) == json.dumps(render(("a", "b")))


def test_the_pods_carry_what_the_service_and_the_reconciler_find_them_by() -> None:
    daemon_set = render()
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    assert labels[names.LABEL_OF_NETWORK] == "foo"
    assert labels[names.LABEL_TYPE] == names.TYPE_LEAF
    assert labels[names.LABEL_EDGE_NETWORK] == "plant"
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= labels.items()
    # The label that puts a pod into a network would have it injected.
    assert names.LABEL_NETWORK not in labels


def test_a_change_of_the_network_keeps_the_selector_which_can_never_change() -> None:
    assert render()["spec"]["selector"] == render(network="bar")["spec"]["selector"]


def test_the_workload_goes_with_its_edge_network() -> None:
    (owner,) = render()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "EdgeNetwork",
        "plant",
        "network-plant",
        True,
    )


def test_a_node_that_is_away_does_not_keep_the_others_from_being_updated() -> None:
    assert render()["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "100%"


def test_selector_and_tolerations_are_those_given_and_nothing_more() -> None:
    toleration = {"key": "dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    pod = pod_of(render(tolerations=[toleration]))
    assert pod["nodeSelector"] == {"role": "edge"}
    assert pod["tolerations"] == [toleration]


def test_nodes_that_another_one_keeps_are_excluded_by_their_names_one_by_one() -> None:
    long = f"{'a.' * 126}a"
    required = pod_of(render((long, "n1")))["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted((long, "n1"))
    ]


def test_two_leafs_of_a_network_never_write_to_one_folder() -> None:
    affinity = pod_of(render())["affinity"]["podAntiAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"] == {names.LABEL_TYPE: "leaf", names.LABEL_OF_NETWORK: "foo"}


def test_the_programs_have_no_rights_on_the_node_but_one_that_gives_the_folder_away() -> None:
    daemon_set = render()
    for name, container in containers_of(daemon_set).items():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        if name == "prepare":
            assert security["runAsUser"] == 0
            assert security["capabilities"]["add"] == ["CHOWN"]
        else:
            assert security["runAsNonRoot"] is True
            assert "add" not in security["capabilities"]
    pod = pod_of(daemon_set)
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["shareProcessNamespace"] is True


def test_the_sidecar_is_told_where_everything_is_as_edge_nodes_see_it() -> None:
    vault = VaultSettings(
        "https://vault.inside", ca_pem="CA OF VAULT\n", auth_mount="a", transit_mount="t", kv_mount="k"
    )
    settings = configuration(
        vault=VaultConfiguration(vault, "https://vault.outside", "audience"),
        nats=NatsConfiguration(("tls://hub",), ("tls://hub",), ("tls://leafs",), "CA OF NATS"),
    )
    daemon_set = leaf_workload.daemon_set(EdgeNetwork.parse(edge_network()), (), settings)
    environment = environment_of(containers_of(daemon_set)[names.SIDECAR_CONTAINER])
    assert environment["EDGEFARM_VAULT_ADDR"] == "https://vault.outside"
    assert environment["EDGEFARM_CA_BUNDLE"] == "CA OF VAULT\nCA OF NATS\n"
    assert environment["EDGEFARM_NETWORK"] == "foo"
    assert environment["EDGEFARM_SERVICE_ACCOUNT"] == names.leaf_workload("plant")
    assert environment["EDGEFARM_NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert "EDGEFARM_VAULT_NAMESPACE" not in environment
    mounts = {name for c in containers_of(daemon_set).values() for name in (m["mountPath"] for m in c["volumeMounts"])}
    folders = {value for name, value in environment.items() if name.endswith("_DIR")}
    assert folders <= mounts


def test_one_authority_for_both_is_handed_in_once_and_none_means_the_systems() -> None:
    def bundle(vault: str | None, nats: str | None) -> Any:
        settings = configuration(
            vault=VaultConfiguration(VaultSettings("https://vault", ca_pem=vault), "https://vault", "audience"),
            nats=NatsConfiguration(("tls://hub",), ("tls://hub",), ("tls://leafs",), nats),
        )
        daemon_set = leaf_workload.daemon_set(EdgeNetwork.parse(edge_network()), (), settings)
        return environment_of(containers_of(daemon_set)[names.SIDECAR_CONTAINER]).get("EDGEFARM_CA_BUNDLE")

    assert bundle("SAME\n", "SAME") == "SAME\n"
    assert bundle(None, None) is None


# -- comparison --------------------------------------------------------------------------------------------------------


def held(daemon_set: Object) -> Object:
    """As an API server would hold it: without empty members, with defaults and with what others added."""
    actual: Object = without_empty(copy.deepcopy(daemon_set))
    del actual["kind"], actual["apiVersion"]
    actual["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}
    actual["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "1"}
    actual["spec"]["revisionHistoryLimit"] = 10
    pod = pod_of(actual)
    pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "serviceAccount": "x"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        container["terminationMessagePath"] = "/dev/termination-log"
    actual["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    return actual


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_empty(v) for k, v in value.items() if v is not None and v != [] and v != {}}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_defaults_and_additions_of_others_are_no_drift() -> None:
    desired = render()
    assert is_as_desired(held(desired), desired)


def drifts() -> list[Any]:
    def image(pod: Object) -> None:
        pod["containers"][0]["image"] = "nats:evil"

    def variable(pod: Object) -> None:
        pod["initContainers"][1]["env"].append({"name": "EDGEFARM_LOG_LEVEL", "value": "debug"})

    def container(pod: Object) -> None:
        pod["containers"].append({"name": "more"})

    def volume(pod: Object) -> None:
        pod["volumes"].pop()

    def selector(pod: Object) -> None:
        pod["nodeSelector"]["site"] = "a"

    def everywhere(pod: Object) -> None:
        del pod["nodeSelector"]

    def tolerations(pod: Object) -> None:
        pod["tolerations"] = [{"operator": "Exists"}]

    def affinity(pod: Object) -> None:
        pod["affinity"]["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}

    def host_network(pod: Object) -> None:
        pod["hostNetwork"] = True

    def escalation(pod: Object) -> None:
        del pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]

    def token(pod: Object) -> None:
        del pod["automountServiceAccountToken"]

    every = (
        image, variable, container, volume, selector, everywhere, tolerations, affinity, host_network, escalation, token
    )  # fmt: skip
    return [pytest.param(each, id=each.__name__) for each in every]


@pytest.mark.parametrize("drift", drifts())
def test_what_somebody_changed_is_seen(drift: Any) -> None:
    desired = render()
    actual = held(desired)
    drift(pod_of(actual))
    assert not is_as_desired(actual, desired)


def test_what_is_no_longer_desired_is_seen() -> None:
    before = held(render(("n1",), tolerations=[{"operator": "Exists"}], nodeSelector={"a": "b", "c": "d"}))
    assert not is_as_desired(before, render(tolerations=[{"operator": "Exists"}], nodeSelector={"a": "b", "c": "d"}))
    assert not is_as_desired(before, render(("n1",), nodeSelector={"a": "b", "c": "d"}))
    assert not is_as_desired(before, render(("n1",), tolerations=[{"operator": "Exists"}], nodeSelector={"a": "b"}))
    assert not is_as_desired(before, render(("n1",), tolerations=[{"operator": "Exists"}], nodeSelector={}))


def test_leafs_are_pulled_with_the_secrets_that_the_configuration_names() -> None:
    leaf = LeafConfiguration("sidecar:1", "nats:2.15", ("registry", "mirror"))
    for settings, expected in (
        (configuration(leaf=leaf), [{"name": "registry"}, {"name": "mirror"}]),
        (configuration(), None),
    ):
        daemon_set = leaf_workload.daemon_set(EdgeNetwork.parse(edge_network()), (), settings)
        assert daemon_set["spec"]["template"]["spec"]["imagePullSecrets"] == expected
