"""The steps of `make demo-edge` around the loss of an uplink: what goes on without it, and what comes back with it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from nats.js.errors import APIError

from edgefarm import names
from localcluster.client import PODS, SERVICE_ACCOUNTS, Json
from localcluster.demo.credentials import connection, credentials_of
from localcluster.demo.edge.plant import NETWORK
from localcluster.demo.edge.steps import EDGE_NODES, EdgeDemo
from localcluster.demo.observer import POLICIES, eventually
from localcluster.demo.report import CheckFailed
from localcluster.node.images import EXAMPLES_IMAGE

#: The node that loses its uplink.
LOST: Final = EDGE_NODES[0]
OFFLINE_READINGS: Final = 10_000
#: Seconds after the uplink's return in which a Policy that was deleted meanwhile must have no effect any more.
REVOCATION: Final = 10.0
_VISITOR: Final = "visitor"
#: The network that is filled.
_SMALL: Final = "small"


@dataclass
class OutageDemo(EdgeDemo):
    """Goes on where `EdgeDemo` ends."""

    returned_at: float = 0.0

    async def the_uplink_is_cut(self) -> str:
        """All TCP connections of one node's pods to the hub and to Vault end; the node goes on by itself."""
        await self._admit_visitor()
        await eventually(f"the station on {LOST} is at its leaf", lambda: self._at_leaf(LOST), within=60)
        await self.plant.cut(LOST)
        await eventually("the status says that the leaf is away", self._is_away, within=60)
        before = (await self.plant.ask_station(LOST))["heard"]
        heard = await eventually("publish and subscribe go on", lambda: self._heard_more(LOST, before), within=30)
        return f"{LOST} is away; on the node itself messages still arrive ({heard} on local.{LOST})"

    async def readings_are_stored(self) -> str:
        """Ten thousand readings are stored on the node."""
        started = time.monotonic()
        self.stored[LOST] = await self.plant.publish(LOST, OFFLINE_READINGS)
        rate = OFFLINE_READINGS / (time.monotonic() - started)
        return f"{OFFLINE_READINGS} readings stored on {LOST} without uplink ({rate:,.0f}/s, each acknowledged)"

    async def a_reboot_does_no_harm(self) -> str:
        """Leaf, sidecars and applications are killed and start again from what is on the node's disk."""
        leaf, station = (await self.plant.leafs())[LOST], await self.plant.station(LOST)
        counts = _restarts(leaf), _restarts(station)
        await self.plant.reboot(LOST, 1)
        await eventually("leaf and station were started again", lambda: self._rebooted(counts), within=120)
        await eventually("the station is back at its leaf", lambda: self._connected_again(), within=120)
        page = await self.plant.at_leaf(LOST, "jsz?streams=1&accounts=1")
        held = sum(messages_by_stream(page, "READINGS"))
        if held < self.stored[LOST]:
            raise CheckFailed(f"after the reboot the leaf holds {held} of {self.stored[LOST]} readings")
        return f"killed and started again without uplink: {held} readings are still there, credentials still work"

    async def a_new_pod_says_what_it_lacks(self) -> str:
        """A pod that was never here before cannot prove itself to Vault; it says so."""
        pod = await self._start_pod("newcomer", "station")
        sentence = await eventually("the sidecar says why", lambda: self._waits_for_vault(pod), within=60)
        await self.plant.kube.delete(PODS, "newcomer", "line")
        return f"its sidecar says: {sentence}"

    async def a_policy_is_deleted_meanwhile(self) -> str:
        """A Policy goes while the node is away: its pod there cannot know, and goes on locally."""
        await self.plant.kube.delete(POLICIES, _VISITOR, "line")
        await eventually("the Policy is gone from the account", self._is_revoked, within=60)
        if not await self._visitor_at_leaf():
            raise CheckFailed("the visitor's connection to the leaf ended, although nobody could tell the leaf")
        return f"Policy {_VISITOR} deleted; the hub refuses its credentials, the leaf cannot know yet"

    async def the_uplink_returns(self) -> str:
        """All that was stored reaches the hub: nothing lost, nothing twice, in order."""
        await self.plant.heal(LOST)
        self.returned_at = time.monotonic()
        dead = asyncio.create_task(self._visitor_is_refused())
        await self.collect(within=90)
        caught_up = time.monotonic() - self.returned_at
        self.note(f"    the deleted Policy's credentials were dead {await dead:.1f} s after the uplink's return")
        if dead.result() > REVOCATION:
            raise CheckFailed(f"it took {dead.result():.1f} s until the deleted Policy had no effect on {LOST}")
        return (
            f"{OFFLINE_READINGS} readings reached the hub {caught_up:.1f} s after the uplink's return: none lost, none "
            f"doubled, in order; the deleted Policy was dead after {dead.result():.1f} s"
        )

    async def limits_are_kept(self) -> str:
        """A full stream at the edge and a full network in the hub refuse publishers; others feel nothing."""
        edge = await self._fill_the_edge()
        hub = await self._fill_the_hub()
        self.stored[EDGE_NODES[1]] = await self.plant.publish(EDGE_NODES[1], 10)
        await self.collect(within=60)
        return f"at the edge: {edge}; in the hub: {hub}; network {NETWORK} goes on"

    # -- what the steps do and look at -------------------------------------------------------------------------------

    async def _admit_visitor(self) -> None:
        spec = {"network": NETWORK, "allowpub": ["local.>"], "allowsub": ["local.>"]}
        await self.plant.kube.apply([_object("Policy", "line", _VISITOR, spec)])
        await self.plant.kube.wait_for(SERVICE_ACCOUNTS, _VISITOR, "line", until=lambda obj: obj is not None)
        await self._start_pod(_VISITOR, _VISITOR)
        await eventually("the visitor is connected to the leaf", self._visitor_at_leaf, within=60)

    async def _start_pod(self, name: str, account: str) -> Json:
        """A single pod on the node that loses its uplink."""
        template = (await self.plant.station(LOST))["metadata"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "line",
                "labels": {names.LABEL_NETWORK: NETWORK},
                "annotations": {
                    key: template["annotations"][key] for key in (names.ANNOTATION_MODE, names.ANNOTATION_PERSIST)
                },
            },
            "spec": {
                "nodeName": LOST,
                "serviceAccountName": account,
                "containers": [
                    {
                        "name": "app",
                        "image": EXAMPLES_IMAGE,
                        "command": ["python", "-m", "examples.edge.apps.station"],
                        "env": [
                            {"name": "NODE", "value": name},
                            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        ],
                    }
                ],
            },
        }
        await self.plant.kube.apply([pod])
        return await self.plant.kube.get(PODS, name, "line")

    async def _is_away(self) -> bool:
        return not (await self.plant.nodes_in_status())[LOST]["connected"]

    async def _heard_more(self, node: str, before: dict[str, int]) -> int | None:
        subject = f"local.{node}"
        await self.plant.ask_station(node, "/say", post=True)
        heard = int((await self.plant.ask_station(node))["heard"].get(subject, 0))
        return heard if heard > before.get(subject, 0) else None

    async def _rebooted(self, counts: tuple[int, int]) -> bool:
        leaf, station = (await self.plant.leafs())[LOST], await self.plant.station(LOST)
        return _restarts(leaf) > counts[0] and _restarts(station) > counts[1]

    async def _connected_again(self) -> bool:
        return bool((await self.plant.ask_station(LOST))["connected"]) and await self._at_leaf(LOST)

    async def _waits_for_vault(self, pod: Json) -> str | None:
        current = await self.plant.kube.get(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
        sentence = (await self.plant.observer.sidecar(current, "/readyz")).strip()
        return sentence if "Vault" in sentence else None

    async def _is_revoked(self) -> bool:
        account = (await self.plant.observer.network(NETWORK))["status"]["account"]
        stored = await self.plant.observer.stored_account(account)
        roles = {key["role"] for key in stored["nats"]["signing_keys"]}
        return f"line.{_VISITOR}" not in roles

    async def _visitor_at_leaf(self) -> bool:
        return f"line/{_VISITOR}" in await self.plant.clients_at_leaf(LOST)

    async def _visitor_is_refused(self) -> float:
        """Seconds from the uplink's return until the visitor's connection ended."""
        await eventually("the visitor is refused", self._visitor_left, within=60)
        return time.monotonic() - self.returned_at

    async def _visitor_left(self) -> bool:
        return not await self._visitor_at_leaf()

    async def _fill_the_edge(self) -> str:
        """Publish to a small stream on one node until it refuses."""
        node = EDGE_NODES[1]
        await self.plant.kube.apply(
            [_stream("line", "fill-edge", location="edge", subject="local.fill", network=NETWORK)]
        )
        await eventually("Stream fill-edge is Ready", lambda: self._is_ready("line", "fill-edge"), within=60)
        await eventually(f"the station on {node} is connected", lambda: self._at_leaf(node), within=60)
        return await eventually(f"a stream on {node} is full", lambda: self._refusal(node), within=60)

    async def _refusal(self, node: str) -> str:
        """Fill the node's small stream up; a connection that broke meanwhile is no refusal."""
        answer = await self.plant.ask_station(node, "/fill", post=True)
        if "refused" not in answer:
            raise CheckFailed(f"the station on {node} got no refusal: {answer}")
        return f"refused after {answer['stored']} kB ({answer['refused']})"

    async def _fill_the_hub(self) -> str:
        """Publish into a small network until its limit is reached."""
        kube = self.plant.kube
        network = {"namespaces": ["control"], "limits": {"filestorage": "1Mi"}}
        policy = {"network": _SMALL, "allowpub": ["fill"]}
        await kube.apply(
            [
                _object("Network", names.CONTROLLER_NAMESPACE, _SMALL, network),
                _object("Policy", "control", _SMALL, policy),
                _stream("control", "fill", location="main", subject="fill", network=_SMALL),
            ]
        )
        await eventually("Stream fill is Ready", lambda: self._is_ready("control", "fill"), within=60)
        await kube.wait_for(SERVICE_ACCOUNTS, _SMALL, "control", until=lambda obj: obj is not None)
        platform = self.plant.platform
        async with (
            credentials_of(platform, _SMALL, "control", _SMALL) as creds,
            connection(platform, creds, []) as client,
        ):
            for number in range(2000):
                try:
                    await client.jetstream().publish("fill", bytes(1000), timeout=5)
                except APIError as error:
                    return f"refused after {number} kB ({error.description})"
        raise CheckFailed("a network with 1 MiB stored 2 MB")


def _object(kind: str, namespace: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _stream(namespace: str, name: str, *, location: str, subject: str, network: str) -> Json:
    """A stream that is full after 64 kB at the edge; one in the hub has the limit of its network."""
    config = {"maxBytes": "64Ki", "discard": "new"} if location == "edge" else {}
    spec = {"network": network, "name": "FILL", "location": location, "subjects": [subject], "config": config}
    return _object("Stream", namespace, name, spec)


def _restarts(pod: Json) -> int:
    status = pod["status"]
    return sum(
        entry["restartCount"]
        for kind in ("initContainerStatuses", "containerStatuses")
        for entry in status.get(kind, ())
    )


def messages_by_stream(page: Any, stream: str) -> list[int]:
    """How many messages the streams of this name hold, in a server's page `jsz?streams=1&accounts=1`."""
    return [
        int(found["state"]["messages"])
        for account in page.get("account_details", ())
        for found in account.get("stream_detail", ())
        if found["name"] == stream
    ]
