"""What the owner of a labelled pod without credentials is told."""

from __future__ import annotations

from typing import Any

import pytest

from edgefarm import names
from reconciler.desired.advice import advise
from reconciler.desired.resources import FoundNetwork
from tests.reconciler.objects import deleting, network, pod, policy


def granted(*accounts: str, network: str = "foo") -> dict[str, Any]:
    return {**policy(), "status": {"network": network, "serviceAccounts": list(accounts)}}


def told(subject: dict[str, Any], found: dict[str, Any] | None, *policies: dict[str, Any]) -> tuple[str, str] | None:
    advice = advise(subject, FoundNetwork.read(found) if found else None, policies)
    return (advice.reason, advice.message) if advice else None


@pytest.mark.parametrize(
    ("subject", "found", "policies", "reason", "words"),
    [
        (pod(), None, [], "NetworkNotFound", "there is no network 'foo': create it"),
        (pod(), deleting(network()), [], "NetworkNotFound", "correct the label"),
        (pod(namespace="lab"), network(), [], "NamespaceNotInNetwork", "add it to the Network's spec.namespaces"),
        (pod(), network(), [], "NoGrant", "create a Policy named 'sensor'"),
        (pod(), network(), [policy()], "NoGrant", "service account 'sensor'"),
        (pod(), network(), [granted("other")], "NoGrant", "spec.serviceAccounts"),
        (pod(), network(), [granted("sensor", network="bar")], "NoGrant", "network 'foo'"),
    ],
)
def test_it_says_what_is_missing_and_what_to_create(
    subject: dict[str, Any], found: dict[str, Any] | None, policies: list[dict[str, Any]], reason: str, words: str
) -> None:
    advice = told(subject, found, *policies)
    assert advice is not None
    assert advice[0] == reason
    assert words in advice[1]


def test_a_labelled_pod_without_sidecar_is_told_so_whatever_its_rights() -> None:
    plain = pod()
    del plain["spec"]["initContainers"]
    for found in (network(), None):
        advice = told(plain, found, granted("sensor"))
        assert advice is not None
        assert advice[0] == "NotInjected"
        assert "the namespace 'factory' is left alone" in advice[1]
    plain["metadata"]["annotations"] = {names.ANNOTATION_INJECT: "false"}
    assert told(plain, network(), granted("sensor")) is None


@pytest.mark.parametrize("container", [names.SIDECAR_CONTAINER, names.INIT_CONTAINER])
@pytest.mark.parametrize("place", ["initContainers", "containers"])
def test_a_pod_is_injected_in_whichever_form_the_sidecar_came(place: str, container: str) -> None:
    injected = pod()
    del injected["spec"]["initContainers"]
    injected["spec"][place] = [{"name": container}, {"name": "app"}]
    assert told(injected, network(), granted("sensor")) is None


def test_a_pod_that_expects_another_policy_is_told_which_one_holds() -> None:
    expecting = pod()
    expecting["metadata"]["annotations"] = {names.ANNOTATION_POLICY: "admin"}
    advice = told(expecting, network(), granted("other"), granted("sensor"))
    assert advice is not None
    assert advice[0] == "OtherPolicy"
    assert "from the Policy 'sensor': write 'sensor' in the annotation" in advice[1]
    expecting["metadata"]["annotations"] = {names.ANNOTATION_POLICY: "sensor"}
    assert told(expecting, network(), granted("sensor")) is None


def test_nothing_is_said_about_pods_that_are_fine_finished_or_going() -> None:
    assert told(pod(), network(), granted("sensor")) is None
    assert told({**pod(), "status": {"phase": "Succeeded"}}, None) is None
    assert told(deleting(pod()), None) is None
    default = pod()
    del default["spec"]["serviceAccountName"]
    assert told(default, network(), granted("default")) is None
