"""The controller of EdgeNetworks in the real world: an API server, a hub, and leafs as processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from reconciler.ports import DAEMON_SET, EDGE_NETWORK, NETWORK, NODE, SERVICE_ACCOUNT, Kind, Object
from tests.leafkit import Leaf
from tests.reconciler.conftest import Site
from tests.reconciler.leafs import make_leaf

NAMESPACE = names.CONTROLLER_NAMESPACE


@dataclass
class Edge:
    """A test's EdgeNetworks and nodes, whose labels and names nobody else uses."""

    site: Site

    @property
    def name(self) -> str:
        return f"plant-{self.site.network}"

    @property
    def workload(self) -> str:
        return names.leaf_workload(self.name)

    async def make(self, name: str | None = None, **spec: Any) -> Object:
        """Create an EdgeNetwork that selects the nodes of this test's site."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "EdgeNetwork",
            "metadata": {"name": name or self.name, "namespace": NAMESPACE},
            "spec": {"network": self.site.network, "nodeSelector": {"site": self.site.network}, **spec},
        }
        return await self.site.reconciler.kube.create(EDGE_NETWORK, body)

    def node(self, name: str) -> str:
        """The full name of a node of this test."""
        return f"{name}.{self.site.network}"

    async def make_node(self, name: str, **labels: str) -> None:
        """Create a node that the EdgeNetwork selects, unless `labels` say something else."""
        metadata = {"name": self.node(name), "labels": labels or {"site": self.site.network}}
        await self.site.reconciler.kube.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})

    async def label(self, name: str, **labels: str | None) -> None:
        """Change labels of a node."""
        await self.site.reconciler.kube.patch(NODE, None, self.node(name), {"metadata": {"labels": labels}})

    async def get(self, kind: Kind = EDGE_NETWORK, name: str | None = None) -> Object:
        """The EdgeNetwork, or one of its objects."""
        obj = await self.site.get(kind, name or (self.name if kind is EDGE_NETWORK else self.workload), NAMESPACE)
        assert obj is not None
        return obj

    async def condition(self, type_: str, name: str | None = None) -> tuple[str, str, str]:
        return await self.site.condition(EDGE_NETWORK, name or self.name, type_, NAMESPACE)

    async def nodes(self, name: str | None = None) -> dict[str, bool]:
        """The nodes in the status, by their short names, and whether their leaf is connected."""
        status = (await self.get(name=name))["status"]
        assert status["selected"] == len(status["nodes"])
        assert status["connected"] == sum(node["connected"] for node in status["nodes"])
        return {node["name"].partition(".")[0]: node["connected"] for node in status["nodes"]}

    async def once(self, name: str | None = None) -> None:
        await self.site.reconciler.once("edge-network", NAMESPACE, name or self.name)

    async def see(self, **wanted: bool) -> None:
        """Look at the hub and pass until the status says so."""
        async with asyncio.timeout(20):
            while True:
                await self.site.reconciler.see_leafs()
                await self.site.reconciler.converge()
                if await self.nodes() == wanted:
                    return
                await asyncio.sleep(0.05)

    async def writes(self) -> list[str]:
        """What one more pass writes."""
        self.site.reconciler.gate.reset()
        await self.once()
        return self.site.reconciler.gate.writes


@pytest.fixture
async def edge(site: Site) -> AsyncIterator[Edge]:
    """A network, an EdgeNetwork and two nodes: one that it selects and one that it does not."""
    made = Edge(site)
    await site.make_network(limits={"filestorage": "10M", "inmemorystorage": "1M"})
    await made.make()
    await made.make_node("one")
    await made.make_node("other", site="elsewhere")
    await site.reconciler.converge()
    yield made
    kube = site.reconciler.kube
    for obj in (await kube.list(NODE))[0]:
        if obj["metadata"]["name"].endswith(f".{site.network}"):
            await kube.delete(NODE, None, obj["metadata"]["name"])
    for obj in (await kube.list(EDGE_NETWORK, NAMESPACE))[0]:
        if obj["spec"]["network"] == site.network:
            await kube.delete(EDGE_NETWORK, NAMESPACE, obj["metadata"]["name"])


async def test_an_edge_network_gets_a_workload_that_goes_with_it_and_a_second_pass_writes_nothing(edge: Edge) -> None:
    owner = (await edge.get())["metadata"]["uid"]
    for kind in (DAEMON_SET, SERVICE_ACCOUNT):
        (reference,) = (await edge.get(kind))["metadata"]["ownerReferences"]
        assert reference["uid"] == owner
    assert await edge.nodes() == {"one": False}
    assert (await edge.condition("Ready"))[:2] == ("True", "Reconciled")
    assert (await edge.condition("NetworkFound"))[0] == "True"
    assert (await edge.condition("LimitsEffective"))[0] == "True"
    assert await edge.writes() == []


async def test_labels_of_nodes_bring_and_take_leafs(edge: Edge) -> None:
    await edge.label("other", site=edge.site.network)
    await edge.site.reconciler.converge()
    assert await edge.nodes() == {"one": False, "other": False}
    await edge.label("one", site=None)
    await edge.site.reconciler.converge()
    assert await edge.nodes() == {"other": False}
    await edge.label("other", unrelated="x")
    await edge.site.reconciler.kube.delete(NODE, None, edge.node("other"))
    await edge.site.reconciler.converge()
    assert await edge.nodes() == {}
    assert (await edge.condition("NodesConnected"))[:2] == ("True", "NoNodes")


async def test_the_older_of_two_edge_networks_keeps_a_node_until_it_goes(edge: Edge) -> None:
    younger = f"younger-{edge.site.network}"
    await asyncio.sleep(1)  # creation times have whole seconds
    await edge.make(younger)
    await edge.make_node("two")
    await edge.site.reconciler.converge()
    assert await edge.nodes() == {"one": False, "two": False}
    assert await edge.nodes(younger) == {}
    status, reason, message = await edge.condition("NodesConflict", younger)
    assert (status, reason) == ("True", "SelectedTwice")
    assert f"{edge.node('one')}, {edge.node('two')} by '{edge.name}'" in message
    workload = await edge.get(DAEMON_SET, names.leaf_workload(younger))
    affinity = workload["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [field["values"] for field in term["matchFields"]] == [[edge.node("one")], [edge.node("two")]]
    edge.site.reconciler.gate.reset()
    await edge.once(younger)
    assert edge.site.reconciler.gate.writes == []

    await edge.site.delete(EDGE_NETWORK, edge.name, NAMESPACE)
    await edge.site.reconciler.converge()
    assert await edge.nodes(younger) == {"one": False, "two": False}
    assert await edge.condition("NodesConflict", younger) == ("", "", "")
    workload = await edge.get(DAEMON_SET, names.leaf_workload(younger))
    assert not workload["spec"]["template"]["spec"]["affinity"].get("nodeAffinity")


async def test_leafs_of_two_networks_share_a_node(edge: Edge) -> None:
    network, other = f"second-{edge.site.network}", f"other-{edge.site.network}"
    await edge.site.make_network(network, [])
    await edge.make(other, network=network)
    await edge.site.reconciler.converge()
    (state,) = (await edge.get(name=other))["status"]["nodes"]
    assert state["domain"] == names.leaf_domain(network, edge.node("one"))
    assert await edge.nodes() == {"one": False}


async def test_a_leaf_that_connects_and_goes_is_seen_and_an_unchanged_world_writes_nothing(
    edge: Edge, work: Path
) -> None:
    leaf = make_leaf(edge.site, work / "leaf", edge.name, edge.node("one")).start()
    try:
        await edge.see(one=True)
        (state,) = (await edge.get())["status"]["nodes"]
        assert state["domain"] == names.leaf_domain(edge.site.network, edge.node("one"))
        assert state["rtt"].endswith("ms")
        assert (await edge.condition("NodesConnected"))[:2] == ("True", "AllConnected")
        for _ in range(3):
            await edge.site.reconciler.see_leafs()
            assert await edge.writes() == []
        leaf.stop()
        await edge.see(one=False)
        (state,) = (await edge.get())["status"]["nodes"]
        assert "rtt" not in state
        status, reason, message = await edge.condition("NodesConnected")
        assert (status, reason) == ("False", "NodesAway")
        assert edge.node("one") in message
        assert (await edge.condition("Ready"))[0] == "True"
    finally:
        leaf.stop()


async def test_a_hub_that_restarts_makes_the_connections_unknown_until_it_is_back(edge: Edge, work: Path) -> None:
    leaf = make_leaf(edge.site, work / "leaf", edge.name, edge.node("one")).start()
    try:
        await edge.see(one=True)
        edge.site.world.hub.stop()
        await edge.site.reconciler.see_leafs()
        await edge.once()
        assert (await edge.condition("NodesConnected"))[:2] == ("Unknown", "NatsUnavailable")
        assert await edge.nodes() == {"one": True}
        await edge.site.reconciler.see_leafs()
        assert await edge.writes() == []
        edge.site.world.restart_hub()
        await edge.site.reconciler.see_leafs()
        await edge.see(one=True)
        assert (await edge.condition("NodesConnected"))[0] == "True"
    finally:
        leaf.stop()


async def test_a_new_process_writes_nothing(edge: Edge, work: Path) -> None:
    leaf = make_leaf(edge.site, work / "leaf", edge.name, edge.node("one")).start()
    try:
        await edge.see(one=True)
        edge.site.reconciler.restart()
        assert await edge.writes() == []
        await edge.site.reconciler.see_leafs()
        assert await edge.writes() == []
    finally:
        leaf.stop()


async def test_a_leaf_of_another_network_that_takes_our_name_is_not_ours(edge: Edge, work: Path) -> None:
    network, name = f"second-{edge.site.network}", f"other-{edge.site.network}"
    await edge.site.make_network(network, [])
    await edge.make(name, network=network)
    await edge.site.reconciler.converge()
    other = replace(edge.site, network=network)
    leaf: Leaf = make_leaf(other, work / "leaf", name, edge.node("one"))
    leaf.change(domain=names.leaf_domain(edge.site.network, edge.node("one")))
    leaf.start()
    try:
        account = await other.account()
        async with asyncio.timeout(20):
            while account not in {seen.account for seen in (await other.reconciler.see_leafs()).leafs}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await edge.once()
        assert await edge.nodes() == {"one": False}
    finally:
        leaf.stop()


@pytest.mark.parametrize("kind", [DAEMON_SET, SERVICE_ACCOUNT], ids=lambda kind: kind.kind)
async def test_what_was_deleted_is_made_again(edge: Edge, kind: Kind) -> None:
    await edge.site.delete(kind, edge.workload, NAMESPACE)
    await edge.site.reconciler.converge()
    assert (await edge.get(kind))["metadata"]["ownerReferences"]
    said = [event for event in edge.site.reconciler.events.seen if event[1] == "DriftMended"]
    assert len(said) == (1 if kind is DAEMON_SET else 0)


async def test_what_was_changed_is_put_back_and_said(edge: Edge) -> None:
    pod = {"nodeSelector": {"site": "everywhere"}, "hostNetwork": True}
    await edge.site.edit(DAEMON_SET, edge.workload, NAMESPACE, spec={"template": {"spec": pod}})
    await edge.site.edit(DAEMON_SET, edge.workload, NAMESPACE, metadata={"annotations": {"theirs": "stays"}})
    await edge.site.reconciler.converge()
    workload = await edge.get(DAEMON_SET)
    spec = workload["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"site": edge.site.network}
    assert not spec.get("hostNetwork")
    assert workload["metadata"]["annotations"]["theirs"] == "stays"
    said = [event for event in edge.site.reconciler.events.seen if event[1] == "DriftMended"]
    assert said == [(edge.name, "DriftMended", f"DaemonSet {edge.workload} was changed: put back")]
    assert await edge.writes() == []


async def test_an_update_of_the_edge_network_is_no_drift(edge: Edge) -> None:
    toleration = {"key": "dedicated", "operator": "Exists"}
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"tolerations": [toleration]})
    await edge.site.reconciler.converge()
    spec = (await edge.get(DAEMON_SET))["spec"]["template"]["spec"]
    assert spec["tolerations"] == [toleration]
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"tolerations": None})
    await edge.site.reconciler.converge()
    assert not (await edge.get(DAEMON_SET))["spec"]["template"]["spec"].get("tolerations")
    assert not [event for event in edge.site.reconciler.events.seen if event[1] == "DriftMended"]


@pytest.mark.parametrize("kind", [DAEMON_SET, SERVICE_ACCOUNT], ids=lambda kind: kind.kind)
async def test_an_object_of_somebody_else_is_left_alone(edge: Edge, kind: Kind) -> None:
    name = f"taken-{edge.site.network}"
    foreign = {"apiVersion": kind.api_version, "kind": kind.kind}
    metadata = {"name": names.leaf_workload(name), "namespace": NAMESPACE}
    if kind is DAEMON_SET:
        pod = {"containers": [{"name": "x", "image": "x"}]}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
        foreign |= {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}  # type: ignore[dict-item]
    await edge.site.reconciler.kube.create(kind, {**foreign, "metadata": metadata})
    await edge.make(name)
    await edge.site.reconciler.converge()
    status, reason, message = await edge.condition("Ready", name)
    assert (status, reason) == ("False", "NameTaken")
    assert f"{kind.kind} '{names.leaf_workload(name)}'" in message
    assert "ownerReferences" not in (await edge.get(kind, names.leaf_workload(name)))["metadata"]
    await edge.site.delete(kind, names.leaf_workload(name), NAMESPACE)
    await edge.site.reconciler.converge()
    assert (await edge.condition("Ready", name))[0] == "True"


async def test_without_its_network_it_has_no_leafs_and_says_so(edge: Edge) -> None:
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"network": "missing"})
    await edge.site.reconciler.converge()
    assert (await edge.condition("Ready"))[:2] == ("False", "NetworkNotFound")
    assert (await edge.condition("NetworkFound"))[0] == "False"
    assert await edge.site.get(DAEMON_SET, edge.workload, NAMESPACE) is None
    assert await edge.nodes() == {}
    assert await edge.writes() == []
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"network": edge.site.network})
    await edge.site.reconciler.converge()
    assert (await edge.condition("Ready"))[0] == "True"
    assert await edge.nodes() == {"one": False}


async def test_while_its_network_goes_its_leafs_stay_so_that_their_streams_can_be_deleted(edge: Edge) -> None:
    await edge.site.edit(NETWORK, edge.site.network, metadata={"finalizers": ["test/hold", names.FINALIZER]})
    await edge.site.delete(NETWORK, edge.site.network)
    await edge.once()
    assert (await edge.condition("Ready"))[:2] == ("False", "NetworkDeleting")
    assert await edge.get(DAEMON_SET)
    await edge.site.edit(NETWORK, edge.site.network, metadata={"finalizers": None})
    await edge.site.reconciler.converge()
    assert (await edge.condition("Ready"))[:2] == ("False", "NetworkNotFound")
    assert await edge.site.get(DAEMON_SET, edge.workload, NAMESPACE) is None


async def test_without_leaf_urls_nothing_new_is_made_and_nothing_breaks(edge: Edge) -> None:
    configuration = edge.site.world.configuration
    edge.site.reconciler.configuration = replace(configuration, nats=replace(configuration.nats, leaf_urls=()))
    name = f"late-{edge.site.network}"
    await edge.make(name)
    await edge.site.reconciler.converge()
    await edge.once()
    for each in (edge.name, name):
        status, reason, message = await edge.condition("Ready", each)
        assert (status, reason) == ("False", "NoLeafUrls")
        assert "nats.leafUrls" in message
    assert await edge.get(DAEMON_SET)
    assert await edge.site.get(DAEMON_SET, names.leaf_workload(name), NAMESPACE) is None


async def test_a_spec_that_cannot_be_used_is_refused_with_a_sentence_and_what_was_there_stays(edge: Edge) -> None:
    endless = {"key": "dedicated", "effect": "NoExecute", "tolerationSeconds": 2**31}
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"tolerations": [endless]})
    await edge.site.reconciler.converge()
    status, reason, message = await edge.condition("Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec.tolerations[0].tolerationSeconds" in message
    assert await edge.get(DAEMON_SET)
    assert await edge.nodes() == {"one": False}


async def test_limits_beyond_the_networks_are_named(edge: Edge) -> None:
    await edge.site.edit(EDGE_NETWORK, edge.name, NAMESPACE, spec={"limits": {"filestorage": "20M"}})
    await edge.site.reconciler.converge()
    assert (await edge.condition("LimitsEffective"))[:2] == ("False", "NetworkLimitHolds")
    assert (await edge.condition("Ready"))[0] == "True"
    await edge.site.edit(NETWORK, edge.site.network, spec={"limits": {"filestorage": "20M"}})
    await edge.site.reconciler.converge()
    assert (await edge.condition("LimitsEffective"))[:2] == ("True", "Effective")
