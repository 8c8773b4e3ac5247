"""`edgefarm trace`: the rights that the reconciler gives, who shares a pod's subjects, and why a pod is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.tracing.members import Installation, membership_of
from cli.tracing.trace import Trace, trace
from edgefarm import names
from edgefarm.api.network import Network
from edgefarm.api.policy import Policy
from edgefarm.api.stream import Stream
from reconciler.desired.blueprint import Surroundings, plan_network
from reconciler.desired.resources import FoundEdgeNetwork
from reconciler.ports import POD, STREAM
from tests.cli.conftest import Cluster, Ended, ready
from tests.reconciler.objects import NOW, configuration, edge_network, network, policy, stream

Run = Callable[..., Ended]
Json = dict[str, Any]
_CONTROLLER = names.CONTROLLER_NAMESPACE


def _pod(name: str = "sensor-0", account: str = "sensor", namespace: str = "factory", **metadata: Any) -> Json:
    """An injected pod of network foo."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "labels": {names.LABEL_NETWORK: "foo"},
            **metadata,
        },
        "spec": {"serviceAccountName": account, "initContainers": [{"name": names.SIDECAR_CONTAINER}]},
    }


def _in_effect(obj: Json) -> Json:
    name = obj["metadata"]["name"]
    return {**obj, "status": {"network": "foo", "serviceAccounts": [name, *obj["spec"].get("serviceAccounts", ())]}}


def _stream(name: str, *subjects: str) -> Json:
    obj = stream(name.lower(), location="main", subjects=list(subjects))
    return {**obj, "spec": {**obj["spec"], "name": name}}


def _trace(pod: Json, *policies: Json, streams: tuple[Json, ...] = (), pods: tuple[Json, ...] = ()) -> Trace:
    around = Installation(
        _CONTROLLER, [network("foo", ["factory", "office"])], list(map(_in_effect, policies)), streams
    )
    return trace(pod, around, [pod, *pods])


def test_a_pod_has_the_rights_of_the_policy_of_its_service_account() -> None:
    found = _trace(_pod(), policy("sensor", denypub=["sensor.secret"]), policy("viewer", allowpub=[]))
    document = found.document()
    assert (found.network, document["policy"], found.advice) == ("foo", "sensor", None)
    assert document["publish"] == {"allow": ["sensor.>"], "deny": ["sensor.secret"]}
    assert document["subscribe"]["allow"] == ["_INBOX.>"]


def test_who_may_subscribe_to_what_a_pod_publishes_hears_it() -> None:
    viewer = policy("viewer", "office", allowpub=[], allowsub=["sensor.*.temperature", "other.>"])
    deaf = policy("deaf", allowpub=[], allowsub=["sensor.>"], denysub=["sensor.>"])
    board = _pod("board-1", "viewer", "office")
    ended = {**_pod("board-0", "viewer", "office"), "status": {"phase": "Succeeded"}}
    found = _trace(_pod(), policy("sensor"), viewer, deaf, pods=(board, ended))
    assert [each.document() for each in found.heard_by] == [
        {"namespace": "office", "policy": "viewer", "subjects": ["sensor.*.temperature"], "pods": ["board-1"]}
    ]
    assert found.hears == ()
    other_side = _trace(board, policy("sensor"), viewer, deaf, pods=(_pod(),))
    assert [(each.policy, each.pods) for each in other_side.hears] == [("sensor", ("sensor-0",))]


def test_pods_of_the_same_policy_hear_each_other_where_it_says_so() -> None:
    found = _trace(_pod(), policy("sensor", allowsub=["sensor.a"]), pods=(_pod("sensor-1"),))
    assert [(each.policy, each.subjects, each.pods) for each in found.heard_by] == [
        ("sensor", ("sensor.a",), ("sensor-1",))
    ]


def test_a_common_subject_within_another_is_not_named_twice() -> None:
    found = _trace(_pod(), policy("sensor", allowpub=["sensor.>", "sensor.a"]), policy("v", allowsub=["sensor.>"]))
    assert found.heard_by[0].subjects == ("sensor.>",)


def test_streams_are_those_that_the_policy_may_consume() -> None:
    streams = (_stream("ALL", "sensor.>"), _stream("ORDERS", "orders.>"), _stream("ALARMS", "alarm.*"))
    allowed = ["sensor.>", "orders.new"]
    found = _trace(_pod(), policy("sensor", allowsub=allowed), streams=streams)
    assert [each.document() for each in found.streams] == [
        {"stream": "ALL", "filters": ["sensor.>"], "consumer": None},
        {"stream": "ORDERS", "filters": ["orders.new"], "consumer": "factory_sensor"},
    ]
    assert "$JS.API.CONSUMER.CREATE.ORDERS.factory_sensor.orders.new" in found.document()["publish"]["allow"]


def test_a_pod_without_the_label_is_told_which_networks_it_may_join() -> None:
    found = _trace(_pod(labels={}))
    assert found.advice is not None
    assert found.advice.reason == "NotLabelled"
    assert "write the label network.edgefarm.io: foo in its template" in found.advice.message
    nowhere = _trace(_pod(labels={}, namespace="elsewhere"))
    assert nowhere.advice is not None
    assert "add 'elsewhere' to a Network's spec.namespaces" in nowhere.advice.message


def test_a_pod_without_a_sidecar_is_told_to_be_made_again_and_shows_its_rights_all_the_same() -> None:
    bare = {**_pod(), "spec": {"serviceAccountName": "sensor", "containers": [{"name": "app"}]}}
    found = _trace(bare, policy("sensor"))
    assert found.advice is not None
    assert found.advice.reason == "NotInjected"
    assert found.member is not None


def test_what_keeps_a_pod_out_is_named() -> None:
    reasons = {
        "NoGrant": _trace(_pod(account="stranger"), policy("sensor")),
        "NetworkNotFound": _trace(_pod(labels={names.LABEL_NETWORK: "fooo"}), policy("sensor")),
        "NamespaceNotInNetwork": _trace(_pod(namespace="elsewhere"), policy("sensor")),
        "InjectionDisabled": _trace(_pod(annotations={names.ANNOTATION_INJECT: "false"}), policy("sensor")),
        "Ended": _trace({**_pod(), "status": {"phase": "Failed"}}, policy("sensor")),
    }
    assert {name: found.advice.reason if found.advice else None for name, found in reasons.items()} == {
        name: name for name in reasons
    }


def test_a_policy_that_is_not_in_effect_says_why() -> None:
    waiting = {**policy("sensor"), "status": {"conditions": [ready("False", "VaultUnavailable", "Vault is sealed")]}}
    found = trace(_pod(), Installation(_CONTROLLER, [network("foo", ["factory"])], [waiting]))
    assert found.advice is not None
    assert found.advice.message == "the Policy 'sensor' is not in effect yet: Vault is sealed"


def test_a_network_with_a_mistake_says_which() -> None:
    wrong = network("foo", ["factory"], limits={"filestorage": "much"})
    found = trace(_pod(), Installation(_CONTROLLER, [wrong], [policy("sensor")]))
    assert found.advice is not None
    assert found.advice.reason == "NetworkInvalid"
    assert "spec.limits.filestorage" in found.advice.message


def _run_pod(cluster: Cluster, name: str, account: str, **labels: str) -> None:
    sidecar = {"name": names.SIDECAR_CONTAINER, "image": "sidecar", "restartPolicy": "Always"}
    spec = {
        "serviceAccountName": account,
        "initContainers": [sidecar],
        "containers": [{"name": "app", "image": "app"}],
    }
    accounts = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts"
    cluster.rest.post(accounts, {"metadata": {"name": account}})
    cluster.make(POD, name, spec, labels=labels)


def test_the_command_shows_subjects_streams_and_partners(cluster: Cluster, ask: Run) -> None:
    cluster.network("plant", limits={"filestorage": "1Gi"})
    cluster.policy("sensor", allowpub=["sensor.>"])
    cluster.policy("viewer", allowsub=["sensor.>"], denysub=["sensor.secret"])
    spec = {"network": "plant", "name": "READINGS", "location": "main", "subjects": ["sensor.*"]}
    cluster.make(STREAM, "readings", spec, {"conditions": [ready()]})
    _run_pod(cluster, "sensor-0", "sensor", **{names.LABEL_NETWORK: "plant"})
    _run_pod(cluster, "board-0", "viewer", **{names.LABEL_NETWORK: "plant"})
    ended = ask("trace", "board-0", "-n", cluster.namespace)
    assert ended.status == 0, ended
    for text in (
        f"Pod {cluster.namespace}/board-0, service account viewer",
        "Network plant, policy viewer",
        "publish    nothing",
        "subscribe  sensor.>  sensor.secret",
        "sensor  sensor.>  sensor-0",
    ):
        assert text in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100
    document = ask("trace", "sensor-0", "-n", cluster.namespace, "-o", "json").document
    assert [each["pods"] for each in document["heardBy"]] == [["board-0"]]
    assert document["notes"] == []


def test_the_command_explains_a_pod_without_label_and_ends_with_1(cluster: Cluster, ask: Run) -> None:
    cluster.network("plant")
    _run_pod(cluster, "shop-0", "shop")
    ended = ask("trace", "shop-0", "-n", cluster.namespace)
    assert ended.status == 1
    assert "NotLabelled: the pod is in no network" in ended.out


def test_a_pod_that_does_not_exist_is_refused(cluster: Cluster, ask: Run) -> None:
    ended = ask("trace", "nobody", "-n", cluster.namespace)
    assert ended.status == 1
    assert f"there is no pod 'nobody' in namespace '{cluster.namespace}'" in ended.err


def test_the_rights_are_those_that_the_reconciler_puts_into_the_account() -> None:
    streams = [_stream("ALL", "sensor.>"), stream("other", subjects=["other.*"])]
    policies = [policy("sensor", allowsub=["sensor.a"]), policy("viewer", serviceAccounts=["sensor"], denysub=["x.>"])]
    around = Installation(_CONTROLLER, [network("foo", ["factory"])], policies, streams, [edge_network()])
    surroundings = Surroundings(
        policies=tuple(Policy.parse(each) for each in policies),
        template=None,
        same_name={},
        namespaces=frozenset({"factory"}),
        accounts=frozenset(),
        edges=(FoundEdgeNetwork.read(edge_network()),),
        streams=tuple(Stream.parse(each) for each in streams),
    )
    plan = plan_network(Network.parse(network("foo", ["factory"])), surroundings, configuration(), NOW)
    members = membership_of("foo", around).members
    assert [(each.name, each.accounts, each.template) for each in members] == [
        (each.policy, each.accounts, each.rights.template) for each in plan.blueprint.members
    ]
