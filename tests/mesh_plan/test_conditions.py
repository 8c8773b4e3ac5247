"""Conditions of a device: what each follows from, and that nothing is ready over a dead tunnel."""

from __future__ import annotations

from itertools import product

import pytest

from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported, EdgefarmError
from reconciler.desired.mesh import conditions
from reconciler.desired.mesh.claims import Refusal
from reconciler.desired.mesh.conditions import Tunnels
from reconciler.desired.mesh.observed import Observation, SeenPeer
from reconciler.status import Condition
from tests.mesh_plan.kit import edge, gateway, key


def own(**alive: bool) -> Observation:
    peers = [SeenPeer(key(name.replace("_", "-")), alive=each) for name, each in alive.items()]
    return Observation(peers={peer.public_key: peer for peer in peers})


RELAY = gateway(1, public_key=key("relay"))
SPARE = gateway(2, public_key=key("spare"))


@pytest.mark.parametrize(
    ("tunnels", "status", "reason"),
    [
        (Tunnels(own(relay=True), [RELAY], 1), "True", "TunnelAlive"),
        (Tunnels(own(relay=False, spare=True), [RELAY, SPARE], 2), "True", "TunnelAlive"),
        (Tunnels(own(relay=False), [RELAY], 1), "False", "NoTunnel"),
        (Tunnels(own(relay=False, edge_2=True), [RELAY], 2), "False", "NoTunnel"),
        (Tunnels(own(edge_2=True), [], 1), "False", "NoGateway"),
        (Tunnels(None, [RELAY], 1), "False", "NoTunnel"),
        (Tunnels(None, [RELAY], 1, [SeenPeer("", alive=False)]), "False", "NoTunnel"),
        (Tunnels(None, [RELAY], 1, [SeenPeer("", alive=True)]), "True", "TunnelAlive"),
    ],
)
def test_an_edge_host_is_connected_by_a_live_tunnel_to_a_gateway(tunnels: Tunnels, status: str, reason: str) -> None:
    condition = conditions.connected(edge(1), tunnels)
    assert (condition.type, condition.status, condition.reason) == ("Connected", status, reason)


@pytest.mark.parametrize(
    ("tunnels", "status", "reason"),
    [
        (Tunnels(own(edge_1=True, edge_2=False), [RELAY], 2), "True", "TunnelsAlive"),
        (Tunnels(own(edge_1=False), [RELAY], 1), "False", "NoTunnel"),
        (Tunnels(own(edge_1=False), [RELAY], 0), "True", "NoDevices"),
        (Tunnels(own(), [RELAY], 0), "True", "NoDevices"),
        (Tunnels(None, [RELAY], 3), "False", "NoTunnel"),
    ],
)
def test_a_gateway_is_connected_by_any_live_tunnel_or_while_nobody_could_have_one(
    tunnels: Tunnels, status: str, reason: str
) -> None:
    condition = conditions.connected(RELAY, tunnels)
    assert (condition.status, condition.reason) == (status, reason)


def test_a_dead_tunnel_says_where_to_look() -> None:
    condition = conditions.connected(edge(1), Tunnels(own(), [RELAY], 1))
    assert condition.message.endswith("look whether UDP packets get from the host to 203.0.113.1:51820")
    nowhere = conditions.connected(edge(1), Tunnels(own(), [gateway(1, endpoint="")], 1))
    assert "spec.network.mesh.endpoint" in nowhere.message


def test_refusals_stand_in_accepted() -> None:
    assert conditions.accepted([]).status == "True"
    refused = conditions.accepted([Refusal("NetworkTaken", "one"), Refusal("NetworkOverlaps", "two")])
    assert refused == Condition("Accepted", "False", "NetworkTaken", "one; two")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AgentRefused("edgefarm0: exists and is not ours", 1), "HostRefused"),
        (AgentUnavailable("no answer within 30 s"), "HostSilent"),
        (AgentUnsupported("not supported"), "NotSupported"),
    ],
)
def test_why_a_host_did_not_do_as_told_stands_in_configured(error: EdgefarmError, reason: str) -> None:
    condition = conditions.configured(error)
    assert (condition.status, condition.reason) == ("False", reason)
    assert str(error) == condition.message or reason == "NotSupported"


def test_a_hosts_words_are_shortened() -> None:
    message = conditions.configured(AgentRefused("x" * 5000)).message
    assert (len(message), message[-1]) == (1024, "…")


def test_a_device_is_ready_only_while_everything_else_is_true() -> None:
    types = ("Accepted", "AgentConnected", "Configured", "Connected")
    for states in product(("True", "False"), repeat=4):
        given = [
            Condition(type_, "True" if status == "True" else "False", f"Of{type_}", f"about {type_}")
            for type_, status in zip(types, states, strict=True)
        ]
        ready = conditions.ready(given)
        wrong = next((each for each in given if each.status == "False"), None)
        assert ready.status == ("True" if wrong is None else "False")
        assert ready.message == (given[-1] if wrong is None else wrong).message


def test_a_device_of_which_nothing_is_known_yet_is_not_ready() -> None:
    ready = conditions.ready([conditions.accepted([]), conditions.agent_connected(connected=True)])
    assert (ready.status, ready.reason) == ("False", "NotConfigured")


def test_an_agent_that_is_away_is_told_of() -> None:
    assert conditions.agent_connected(connected=False).reason == "Disconnected"


def test_a_device_that_is_switched_off_says_so_everywhere() -> None:
    assert {(each.status, each.reason) for each in conditions.disabled()} == {("False", "Disabled")}
