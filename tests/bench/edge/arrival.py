"""How long changes take to arrive: a label on a node, a Stream in three domains of nodes, a Stream in fifty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from edgefarm import names
from localcluster.chart import read_manifests
from localcluster.client import PODS, has_condition
from localcluster.daprd import write_launcher
from localcluster.demo.edge.plant import EDGE, NETWORK, Plant
from localcluster.demo.observer import EDGE_NETWORKS, NETWORKS, STREAMS, Observer
from localcluster.node.spec import NodeSpec
from localcluster.platform import ROOT, Platform, PlatformOptions
from reconciler.ports import STREAM
from tests.bench.edge.figures import Case, note
from tests.bench.edge.installation import TENANT, Installation, until
from tests.bench.edge.wire import Api, Target

_EXAMPLE: Final = ROOT / "examples" / "edge"
#: Networks and Policies of the example, without its Streams and pods.
_FILES: Final = ("0-namespaces.yaml", "1-network.yaml", "3-policies.yaml")
_NODES: Final = ("edge-1", "edge-2", "edge-3")
_PATIENCE: Final = 120.0


async def on_a_platform(folder: Path, rounds: int) -> None:
    """Label three nodes one after the other, then apply Streams: everything as it is deployed."""
    options = PlatformOptions(
        daprd=write_launcher(folder), node_specs=[NodeSpec(node) for node in _NODES], leafs=True, uplinks=True
    )
    async with Platform(folder, options) as platform:
        note("starting a platform with three nodes")
        await platform.start()
        observer = Observer.of(platform)
        try:
            await _apply_example(platform)
            await _label_nodes(Plant(observer))
            await _apply_streams(platform, rounds)
        finally:
            await observer.system.close()


async def _apply_example(platform: Platform) -> None:
    for name in _FILES:
        await platform.kube.apply(read_manifests((_EXAMPLE / name).read_text()))
    namespace = names.CONTROLLER_NAMESPACE
    await platform.kube.wait_for(NETWORKS, NETWORK, namespace, until=has_condition("Ready"), timeout=_PATIENCE)
    await platform.kube.wait_for(
        EDGE_NETWORKS, EDGE, namespace, until=lambda obj: bool(obj and obj.get("status")), timeout=_PATIENCE
    )


async def _label_nodes(plant: Plant) -> None:
    """From the label to a leaf whose both connections the leaf itself reports, and to the status that says so."""
    connected, shown = [], []
    for node in _NODES:
        note(f"label on {node}")
        began = time.monotonic()
        await plant.label(node, EDGE)
        await until(lambda node=node: _has_uplink(plant, node), f"the leaf on {node} connected", _PATIENCE)  # type: ignore[misc]
        connected.append(time.monotonic() - began)
        await until(lambda node=node: _is_shown(plant, node), f"{node} in the status", _PATIENCE)  # type: ignore[misc]
        shown.append(time.monotonic() - began)
    case = Case("label on a node")
    case.say("until_leaf_connected", "s", connected)
    case.say("until_status_says_so", "s", shown)


async def _has_uplink(plant: Plant, node: str) -> bool:
    pod = (await plant.leafs()).get(node)
    if pod is None or not (pod.get("status") or {}).get("podIP"):
        return False
    try:
        return len((await plant.at_leaf(node, "leafz")).get("leafs") or []) == 2
    except OSError:  # not yet listening
        return False


async def _is_shown(plant: Plant, node: str) -> bool:
    return bool((await plant.nodes_in_status()).get(node, {}).get("connected"))


async def _apply_streams(platform: Platform, rounds: int) -> None:
    kube, seconds = platform.kube, []
    leafs, _ = await kube.list(PODS, names.CONTROLLER_NAMESPACE, labels=f"{names.LABEL_TYPE}={names.TYPE_LEAF}")
    for number in range(rounds):
        name = f"bench-{number}"
        note(f"Stream {name} in {len(leafs)} domains")
        spec = {"network": NETWORK, "name": name.upper(), "location": "edge", "subjects": [f"bench{number}.>"]}
        obj = {
            "apiVersion": names.API_VERSION,
            "kind": "Stream",
            "metadata": {"name": name, "namespace": "line"},
            "spec": {**spec, "config": {"maxBytes": "64Ki"}},
        }
        began = time.monotonic()
        await kube.apply([obj])
        await kube.wait_for(STREAMS, name, "line", until=lambda obj: _present(obj) == len(leafs), timeout=_PATIENCE)
        seconds.append(time.monotonic() - began)
    Case(f"Stream in {len(leafs)} domains, on a platform").say("until_present", "s", seconds)


def _present(obj: dict[str, Any] | None) -> int:
    locations = ((obj or {}).get("status") or {}).get("locations") or ()
    return sum(1 for entry in locations if entry["state"] == "Present")


async def in_many_domains(installation: Installation, leafs: int, rounds: int) -> None:
    """Apply Streams to a network with so many leafs, beside bare requests to JetStream for the same streams."""
    await _start_leafs(installation, leafs)
    domains = [names.leaf_domain(installation.network, node) for node in installation.leafs]
    ours, bare = [], []
    at_hub = installation.at_hub(await installation.controller())
    for number in range(rounds):
        note(f"Stream {number + 1} of {rounds} in {len(domains)} domains")
        spec = {"subjects": [f"many{number}.>"], "config": {"maxBytes": "64Ki"}}
        began = time.monotonic()
        await installation.create(STREAM, f"many-{number}", TENANT, name=f"MANY{number}", location="edge", **spec)
        await until(_everywhere(installation, f"many-{number}", len(domains)), "the Stream is present", _PATIENCE)
        ours.append(time.monotonic() - began)
        bare.append(await asyncio.to_thread(_create_bare, at_hub, domains, number))
    case = Case(f"Stream in {len(domains)} domains, simulated", "bare requests, one after the other")
    case.say("until_present", "s", ours, bare)


async def _start_leafs(installation: Installation, leafs: int) -> None:
    nodes = [node for node in (f"node-{number}" for number in range(leafs)) if node not in installation.leafs]
    note(f"starting {len(nodes)} more leafs")
    began = time.monotonic()
    await installation.start_leafs(nodes, within=60 + 5 * len(nodes))
    note(f"{leafs} leafs are connected after {time.monotonic() - began:.0f} s")


def _everywhere(installation: Installation, stream: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await installation.present(stream) == count

    return look


def _create_bare(at_hub: Target, domains: list[str], number: int) -> float:
    with Api(at_hub) as api:
        began = time.monotonic()
        for domain in domains:
            body = {"name": f"BARE{number}", "subjects": [f"bare{number}.>"], "storage": "file", "max_bytes": 65536}
            api.request(f"$JS.{domain}.API.STREAM.CREATE.BARE{number}", {**body, "num_replicas": 1})
        return time.monotonic() - began
