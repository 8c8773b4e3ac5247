"""What is said about a device of the mesh, from its conditions and peers."""

from __future__ import annotations

from typing import Any

import pytest

from edgefarm.findings import Code, Status
from reconciler.diagnostics.device import DeviceFacts, check_device

_TRUE = ("Accepted", "AgentConnected", "Configured", "Connected", "Ready")
_PEERS = [{"name": "gateway.one", "path": "relay"}, {"name": "edge-2", "path": "direct"}]


def device(peers: list[dict[str, str]] = _PEERS, **failed: str) -> dict[str, Any]:
    """An EdgeDevice whose conditions are true, but for those that `failed` with a message."""
    conditions = [
        {
            "type": each,
            "status": "False" if each in failed else "True",
            "reason": "Reason",
            "message": failed.get(each, "fine"),
        }
        for each in _TRUE
    ]
    return {"metadata": {"name": "edge-1"}, "spec": {}, "status": {"conditions": conditions, "peers": peers}}


def facts(obj: dict[str, Any] | None, *, mesh: bool = True, connected: bool = True) -> DeviceFacts:
    return DeviceFacts("edge-1", obj, mesh, connected)


#: Every code about devices, and what gives it.
CASES: dict[Code, DeviceFacts] = {
    Code.DEVICE_ABSENT: facts(None),
    Code.DEVICE_NOT_READY: facts(device(Configured="no such interface")),
    Code.AGENT_NOT_CONNECTED: facts(device(AgentConnected="away", Connected="nobody hears it"), connected=False),
    Code.TUNNEL_DEAD: facts(device(Connected="no gateway is heard")),
    Code.PEER_STALE: facts(device([*_PEERS, {"name": "edge-3", "path": "none"}])),
}


def test_a_device_in_order_gives_no_finding_but_good_ones() -> None:
    assert {finding.status for finding in check_device(facts(device()))} == {Status.OK}


@pytest.mark.parametrize("code", CASES, ids=str)
def test_exactly_what_is_broken_is_found(code: Code) -> None:
    bad = [each for each in check_device(CASES[code]) if each.status in (Status.ERROR, Status.WARNING)]
    assert [each.code for each in bad] == [code]
    assert all(each.advice for each in bad)


def test_a_mesh_that_is_switched_off_is_said_before_anything_else() -> None:
    found = check_device(facts(device(), mesh=False))
    assert (found[-1].code, found[-1].status) == (Code.DEVICE_NOT_READY, Status.ERROR)


def test_of_many_lost_peers_some_are_named_and_the_others_counted() -> None:
    lost = [{"name": f"edge-{number}", "path": "none"} for number in range(30)]
    stale = [each for each in check_device(facts(device(lost))) if each.code == Code.PEER_STALE]
    assert len(stale) == 11
    assert stale[-1].subject == "20 more"
