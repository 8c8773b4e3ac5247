"""What users get wrong, and what objects do to each other: told in conditions, and the rest works."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import KubernetesRefused
from reconciler.controllers.pod_advisor import GRACE
from reconciler.ports import NAMESPACE, NETWORK, POD, POLICY
from tests.reconciler.conftest import Site


async def test_a_missing_namespace_is_named_and_joins_when_it_appears(site: Site) -> None:
    late = f"{site.factory}-late"
    await site.make_network(namespaces=[site.factory, late], defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.reconciler.converge()
    status, reason, message = await site.condition(NETWORK, site.network, "NamespacesFound")
    assert (status, reason) == ("False", "NamespaceMissing")
    assert late in message
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"
    assert await site.get(POLICY, site.network) is not None
    await site.make_namespace(late)
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "NamespacesFound"))[0] == "True"
    assert await site.get(POLICY, site.network, late) is not None
    async with await site.world.connect(site.world.credentials(site.network, late, "default")):
        pass


async def test_the_younger_claim_to_a_service_account_is_told_and_the_rest_works(site: Site) -> None:
    await site.make_network()
    await site.make_policy("older", allowpub=["older.>"], serviceAccounts=["shared"])
    await site.reconciler.converge()
    await site.make_policy("younger", allowpub=["younger.>"], serviceAccounts=["shared", "own"])
    await site.reconciler.converge()
    status, reason, message = await site.condition(POLICY, "younger", "ServiceAccounts")
    assert (status, reason) == ("False", "ServiceAccountConflict")
    assert "'shared' is held by Policy 'older'" in message
    younger, older = await site.get(POLICY, "younger"), await site.get(POLICY, "older")
    assert younger is not None
    assert older is not None
    assert younger["status"]["serviceAccounts"] == ["own", "younger"]
    assert older["status"]["serviceAccounts"] == ["older", "shared"]
    await site.delete(POLICY, "older")
    await site.reconciler.converge()
    assert await site.condition(POLICY, "younger", "ServiceAccounts") == ("", "", "")
    async with await site.world.connect(site.world.credentials(site.network, site.factory, "shared")) as client:
        await client.client.publish("younger.one", b"")
        await client.settle()
        assert client.errors == []


async def test_an_ambiguous_policy_is_accepted_once_it_names_its_network(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    await site.make_network(f"{site.network}-too", [site.factory])
    await site.reconciler.converge()
    status, reason, message = await site.condition(POLICY, "sensor", "Accepted")
    assert (status, reason) == ("False", "NetworkAmbiguous")
    assert f"'{site.network}' and '{site.network}-too'" in message
    assert site.world.held(site.network)["roles"] == {}
    await site.edit(POLICY, "sensor", spec={"network": f"{site.network}-too"})
    await site.reconciler.converge()
    assert (await site.condition(POLICY, "sensor", "Accepted"))[:2] == ("True", "Accepted")
    assert list(site.world.held(f"{site.network}-too")["roles"])


async def test_networks_are_isolated_from_each_other(site: Site) -> None:
    other = f"{site.network}-too"
    await site.make_network(namespaces=[site.factory])
    await site.make_network(other, [site.office])
    await site.make_policy("publisher", allowpub=[">"])
    await site.make_policy("listener", site.office, allowsub=[">"])
    await site.make_policy("witness", allowsub=[">"])
    await site.reconciler.converge()
    credentials = site.world.credentials
    async with (
        await site.world.connect(credentials(site.network, site.factory, "publisher")) as publisher,
        await site.world.connect(credentials(site.network, site.factory, "witness")) as witness,
        await site.world.connect(credentials(other, site.office, "listener")) as listener,
    ):
        heard, seen = await listener.client.subscribe(">"), await witness.client.subscribe(">")
        await listener.settle()
        await witness.settle()
        await publisher.client.publish("secret", b"1")
        assert (await seen.next_msg(timeout=5)).data == b"1"
        await listener.settle()
        assert heard.pending_msgs == 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"limits": {"filestorage": "lots"}}, "filestorage"),
        ({"limits": {"inmemorystorage": "1Mi", "immemorystorage": "1Mi"}}, "inmemorystorage"),
        ({"defaultNetworkPolicy": {"ref": "a", "spec": {"allowpub": ["a"]}}}, "exclude each other"),
    ],
)
async def test_the_api_server_refuses_a_wrong_network(site: Site, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(KubernetesRefused, match=words):
        await site.make_network(**spec)


@pytest.mark.parametrize("subject", ["a b", "a..b", "a.>.b", "", ".a"])
async def test_the_api_server_refuses_a_policy_with_a_wrong_subject(site: Site, subject: str) -> None:
    with pytest.raises(KubernetesRefused):
        await site.make_policy("sensor", allowpub=[subject])


@pytest.mark.parametrize("name", ["with.dot", "x" * 64])
async def test_the_api_server_refuses_names_that_cannot_be_joined(site: Site, name: str) -> None:
    with pytest.raises(KubernetesRefused):
        await site.make_network(name)
    with pytest.raises(KubernetesRefused):
        await site.make_policy(name)


async def test_a_wrong_annotation_is_told_and_changes_nothing(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.annotate("sensor", rotate_keys_at="soon")
    await site.reconciler.converge()
    assert (await site.condition(POLICY, "sensor", "Ready"))[0] == "True"
    status, reason, message = await site.condition(POLICY, "sensor", "AnnotationsValid")
    assert (status, reason) == ("False", "InvalidAnnotation")
    assert "rotate-keys-at" in message


async def test_a_default_policy_by_reference_follows_the_policy_it_names(site: Site) -> None:
    basic = f"basic-{site.network}"
    await site.make_network(defaultNetworkPolicy={"ref": basic})
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "DefaultPolicy"))[:2] == ("False", "DefaultPolicyNotFound")
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "False"
    await site.make_policy(basic, names.CONTROLLER_NAMESPACE, allowpub=["one.>"])
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"
    accepted = await site.condition(POLICY, basic, "Accepted", names.CONTROLLER_NAMESPACE)
    assert accepted[:2] == ("True", "Template")
    await site.edit(POLICY, basic, names.CONTROLLER_NAMESPACE, spec={"allowpub": ["two.>"]})
    await site.reconciler.converge()
    copy = await site.get(POLICY, site.network)
    assert copy is not None
    assert copy["spec"]["allowpub"] == ["two.>"]


async def test_a_users_own_policy_of_the_copys_name_is_left_alone(site: Site) -> None:
    await site.make_policy(site.network, allowpub=["mine.>"])
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.reconciler.converge()
    status, reason, message = await site.condition(NETWORK, site.network, "DefaultPolicy")
    assert (status, reason) == ("False", "NameTaken")
    assert site.factory in message
    own = await site.get(POLICY, site.network)
    assert own is not None
    assert own["spec"]["allowpub"] == ["mine.>"]
    assert await site.get(POLICY, site.network, site.office) is not None


async def test_without_a_configuration_a_network_says_that_it_waits(site: Site) -> None:
    site.reconciler.configuration = None
    await site.make_network()
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "Ready"))[:2] == ("False", "WaitingForConfiguration")
    network = await site.get(NETWORK, site.network)
    assert network is not None
    assert "finalizers" not in network["metadata"]


async def test_a_namespace_that_is_deleted_takes_its_grants_with_it(site: Site) -> None:
    await site.make_network()
    await site.make_policy("dashboard", site.office, network=site.network, allowsub=["sensor.>"])
    await site.reconciler.converge()
    await site.delete(POLICY, "dashboard", site.office)
    await site.reconciler.kube.delete(NAMESPACE, None, site.office)
    await site.reconciler.converge()
    assert site.world.held(site.network)["roles"] == {}


async def test_a_labelled_pod_without_credentials_is_told_once_what_to_create(site: Site) -> None:
    await site.make_network()
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": site.factory, "labels": {names.LABEL_NETWORK: site.network}},
        "spec": {
            "serviceAccountName": "sensor",
            "initContainers": [{"name": names.SIDECAR_CONTAINER, "image": "sidecar"}],
            "containers": [{"name": "app", "image": "app"}],
        },
    }
    await site.make_service_account("sensor")
    await site.reconciler.kube.create(POD, pod)
    await site.reconciler.converge()
    result = await site.reconciler.once("pod-advisor", site.factory, "app")
    assert site.reconciler.events.seen == []
    assert result.requeue_after is not None
    assert result.requeue_after <= GRACE
    site.reconciler.ahead = GRACE + timedelta(seconds=1)
    for _ in range(2):
        await site.reconciler.once("pod-advisor", site.factory, "app")
    ((name, reason, message),) = site.reconciler.events.seen
    assert (name, reason) == ("app", "NoGrant")
    assert "create a Policy named 'sensor'" in message
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    site.reconciler.events.seen.clear()
    await site.reconciler.once("pod-advisor", site.factory, "app")
    assert site.reconciler.events.seen == []


async def test_a_filter_that_nats_cannot_enforce_is_named_and_not_granted(site: Site) -> None:
    await site.make_network()
    await site.make_policy("mixed", allowsub=["a.*", "a.b.c"])
    await site.reconciler.converge()
    status, reason, message = await site.condition(POLICY, "mixed", "SubscriptionsGranted")
    assert (status, reason) == ("False", "NotEnforceable")
    assert "not granted: a.*;" in message
    assert (await site.condition(POLICY, "mixed", "Ready"))[0] == "True"
