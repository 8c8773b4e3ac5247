"""EdgeNetworks and Streams that cannot be: what kubectl says at once, and what the conditions say of the rest."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from edgefarm import names
from localcluster.client import NODES, Json, Resource
from localcluster.daprd import write_launcher
from localcluster.demo.observer import EDGE_NETWORKS, STREAMS
from localcluster.node.spec import NodeSpec
from localcluster.platform import Platform, PlatformOptions
from tests.e2e.given import installed
from tests.e2e.test_faults import kubectl, message_of, namespace, network, ready, reason_is

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

NETWORK: Final = "n"
#: In which the Streams are.
SPACE: Final = "space"
#: Names of nodes: with dots, and two of the greatest length that differ in the last letter only.
DOTTED: Final = "edge.dots.example"
LONGEST: Final = tuple(f"{'x' * 63}.{'y' * 63}.{'z' * 63}.{'w' * 60}{end}" for end in "ab")
LABEL: Final = {"example.com/site": "floor"}
SECONDS: Final = 60


def edge_network(name: str = "bad", **spec: Any) -> Json:
    meta = {"name": name, "namespace": names.CONTROLLER_NAMESPACE}
    members = {"network": NETWORK, "nodeSelector": {"example.com/site": "nowhere"}, **spec}
    return {"apiVersion": names.API_VERSION, "kind": "EdgeNetwork", "metadata": meta, "spec": members}


def stream(object_name: str = "bad", **spec: Any) -> Json:
    """A Stream in the hub; a member that is None is left out."""
    meta = {"name": object_name, "namespace": SPACE}
    given = {"name": object_name.upper(), "location": "main", "subjects": [f"{object_name}.>"], **spec}
    members = {key: value for key, value in given.items() if value is not None}
    return {"apiVersion": names.API_VERSION, "kind": "Stream", "metadata": meta, "spec": members}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """With a network whose hub takes leafs."""
    folder: Path = tmp_path_factory.mktemp("platform")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    options = PlatformOptions(
        daprd=write_launcher(folder),
        kubebuilder_assets=Path(assets) if assets else None,
        node_specs=(NodeSpec("cloud"), NodeSpec(DOTTED, LABEL)),
        leafs=True,
        renew_every="30m",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
        resync="5s",
    )
    async with installed(folder, options) as running:
        limits = {"filestorage": "8Mi"}
        await running.kube.apply([namespace(SPACE), network(NETWORK, namespaces=[SPACE], limits=limits)])
        await ready(running, NETWORK)
        yield running


async def told(platform: Platform, resource: Resource, obj: Json, kind: str, reason: str) -> str:
    """The message of the condition, once it has this reason."""
    meta = obj["metadata"]
    found = await platform.kube.wait_for(
        resource, meta["name"], meta["namespace"], until=reason_is(kind, reason), timeout=SECONDS
    )
    return message_of(found, kind)


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (edge_network(limits={"filestorage": "-1Gi"}), 'spec.limits.filestorage: Invalid value: "-1Gi"'),
        (edge_network(limits={"inmemorystorage": "lots"}), 'spec.limits.inmemorystorage: Invalid value: "lots"'),
        (edge_network(limits={"filestorage": "99999999Ti"}), "must be 0 or a size below 8Ei: write for example 2Gi"),
        (edge_network(limits={"filestorage": -1}), "must be 0 or a size below 8Ei: write for example 2Gi"),
        (edge_network("a.b"), "no dots"),
        (
            stream(config={"storage": "disk"}),
            'spec.config.storage: Unsupported value: "disk": supported values: "file"',
        ),
        (stream(config={"retention": "ever"}), 'spec.config.retention: Unsupported value: "ever": supported values'),
        (stream(config={"discard": "none"}), 'spec.config.discard: Unsupported value: "none": supported values: "old"'),
        (stream(location="cloud"), 'spec.location: Unsupported value: "cloud": supported values: "edge", "main"'),
        (stream(config={"maxMsgs": -2}), "spec.config.maxMsgs in body should be greater than or equal to -1"),
        (stream(config={"maxMsgs": 0}), "must not be 0: write -1 for unlimited"),
        (stream(config={"maxMsgsPerSubject": -7}), "spec.config.maxMsgsPerSubject in body should be greater than"),
        (stream(config={"maxMsgSize": 2**31}), "should be less than or equal to 2147483647"),
        (stream(config={"maxBytes": "-5Mi"}), 'spec.config.maxBytes: Invalid value: "-5Mi"'),
        (stream(config={"maxAge": "-3d"}), 'spec.config.maxAge: Invalid value: "-3d"'),
        (stream(subjects=None), "subjects is required: write at least one subject, or a link"),
        (stream(subjects=[]), "subjects is required: write at least one subject, or a link"),
        (stream(link={"stream": "X"}), "subjects must be left out of a stream with a link"),
        (stream(subjects=["a..b"]), "each subject must be tokens joined by '.'"),
        (stream(name="a.b"), "spec.name"),
        (stream(edgeNetwork="floor"), "edgeNetwork is only for streams at location edge: leave it out"),
    ],
)
async def test_the_api_server_refuses_it_with_what_to_write(platform: Platform, obj: Json, words: str) -> None:
    done = kubectl(platform, "apply", "-f", "-", text=json.dumps(obj))
    assert done.returncode != 0
    assert words in done.stderr


async def test_an_age_whose_parts_are_too_long_together_is_named_in_a_condition(platform: Platform) -> None:
    obj = stream("age", config={"maxAge": "200y200y"})
    await platform.kube.apply([obj])
    words = "spec.config.maxAge: is longer than JetStream can count (292 years)"
    assert words in await told(platform, STREAMS, obj, "Ready", "InvalidSpec")


async def test_limits_beyond_those_of_the_network_say_what_to_raise(platform: Platform) -> None:
    obj = edge_network("greedy", limits={"filestorage": "9Mi"})
    await platform.kube.apply([obj])
    assert await told(platform, EDGE_NETWORKS, obj, "LimitsEffective", "NetworkLimitHolds") == (
        "the network's filestorage of 8Mi holds here, too: raise spec.limits.filestorage to 9Mi in network 'n', "
        "or lower it here"
    )


async def test_streams_that_stand_in_each_others_way_say_so(platform: Platform) -> None:
    first, second = stream("first", subjects=["s.>"]), stream("second", subjects=["s.*.t"])
    await platform.kube.apply([first])
    await told(platform, STREAMS, first, "Ready", "Reconciled")
    await platform.kube.apply([second])
    said = await told(platform, STREAMS, second, "Ready", "SubjectsOverlap")
    assert "'s.*.t' overlaps with 's.>' of the Stream space/first" in said


async def test_links_that_lead_nowhere_or_in_a_circle_say_so(platform: Platform) -> None:
    lost = stream("lost", subjects=None, link={"stream": "NONE"})
    here = stream("here", subjects=None, link={"stream": "THERE"})
    there = stream("there", location="edge", subjects=None, link={"stream": "HERE"})
    await platform.kube.apply([lost, here, there])
    said = await told(platform, STREAMS, lost, "Ready", "LinkNotFound")
    assert said.startswith("there is no stream 'NONE' at location edge: create it or correct spec.link.stream")
    for obj, link in ((here, "THERE"), (there, "HERE")):
        said = await told(platform, STREAMS, obj, "Ready", "LinkCycle")
        assert f"the link to {link!r} leads back to this stream: give one stream of the circle subjects" in said


async def test_nodes_with_any_name_get_leafs_and_of_two_edge_networks_the_older_keeps_them(platform: Platform) -> None:
    nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": LABEL}} for name in LONGEST]
    for node in nodes:
        await platform.kube.create(NODES, node)
    older = edge_network("older", nodeSelector=LABEL)
    await platform.kube.apply([older])

    def has_leafs(obj: Json | None) -> bool:
        found = {node["name"]: node for node in (obj or {}).get("status", {}).get("nodes", [])}
        return found.keys() == {DOTTED, *LONGEST} and bool(found[DOTTED]["connected"])

    seen = await platform.kube.wait_for(
        EDGE_NETWORKS, "older", names.CONTROLLER_NAMESPACE, until=has_leafs, timeout=SECONDS
    )
    assert seen is not None
    domains = {node["name"]: node["domain"] for node in seen["status"]["nodes"]}
    assert domains[DOTTED] == "n-edge_dots_example"
    assert len(set(domains.values())) == len(domains)
    assert max(map(len, domains.values())) <= 128

    younger = edge_network("younger", nodeSelector=LABEL)
    await platform.kube.apply([younger])
    said = await told(platform, EDGE_NETWORKS, younger, "NodesConflict", "SelectedTwice")
    assert said.startswith("selected already: ")
    assert DOTTED in said
    assert said.endswith("by 'older'; the older EdgeNetwork keeps a node: let the selectors exclude each other")
