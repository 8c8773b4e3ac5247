"""What follows from a specification: who carries what after a change, routes and rules."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from abbot.host.specs import InterfaceSpec, PeerSpec, WireguardSpec
from abbot.host.wanted import moved_carrying, wanted_carrying, wanted_routes, wanted_rules
from abbot.netlink.values import MAIN_TABLE, Route, Rule

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 7)]
prefixes = st.lists(st.sampled_from([f"10.{number}.0.0/16" for number in range(5)]), unique=True, max_size=3).map(tuple)
peer_specs = st.builds(PeerSpec, st.sampled_from(KEYS), allowed=prefixes, always=st.booleans())
peer_lists = st.lists(peer_specs, unique_by=lambda peer: peer.public_key)


def driver(*peers: PeerSpec, routed: bool = False, table: int = MAIN_TABLE, mark: int = 0) -> WireguardSpec:
    by_key = {peer.public_key: peer for peer in peers}
    return WireguardSpec(KEYS[0], routed=routed, table=table, firewall_mark=mark, peers=by_key)


@given(peer_lists, peer_lists, st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)))
def test_a_change_of_some_peers_leads_to_the_same_as_deciding_anew(
    before: list[PeerSpec], changes: list[PeerSpec], removed: set[str], alive: set[str]
) -> None:
    old = driver(*before)
    changed = {**old.peers, **{peer.public_key: peer for peer in changes}}
    new = driver(*(peer for key, peer in changed.items() if key not in removed))
    carrying = wanted_carrying(old, alive)
    moved = moved_carrying(old, new, alive, carrying)
    kept = {key: carries for key, carries in carrying.items() if key in new.peers}
    assert kept | moved == wanted_carrying(new, alive)


def test_the_kernels_own_routes_are_left_to_it() -> None:
    asked = driver(routed=True)
    spec = InterfaceSpec("wg0", "mesh", asked, addresses=("10.0.0.5/16", "fd00::5/64"))
    wanted = wanted_routes(spec, asked, ["10.0.0.0/16", "10.0.0.0/8", "fd00::/64", "fd01::/64"])
    assert wanted == [Route("10.0.0.0/8", MAIN_TABLE), Route("fd01::/64", MAIN_TABLE, priority=1024)]
    in_another = driver(routed=True, table=7)
    assert len(wanted_routes(spec, in_another, ["10.0.0.0/16", "fd00::/64"])) == 2
    assert wanted_routes(spec, driver(), ["10.0.0.0/8"]) == []


def test_rules_are_for_the_families_that_are_routed_into_tables_of_their_own() -> None:
    four = driver(PeerSpec(KEYS[1], allowed=("10.0.0.0/8",)), routed=True, table=7)
    both = driver(PeerSpec(KEYS[1], allowed=("10.0.0.0/8", "::/0")), routed=True, table=8, mark=9)
    main = driver(PeerSpec(KEYS[1], allowed=("10.0.0.0/8",)), routed=True)
    specs = [InterfaceSpec(f"wg{number}", "mesh", one) for number, one in enumerate((four, both, main))]
    assert wanted_rules(specs) == [
        Rule(4, 32763, MAIN_TABLE, suppress_default=True),
        Rule(4, 32764, 7, unless_mark=7),
        Rule(4, 32764, 8, unless_mark=9),
        Rule(6, 32763, MAIN_TABLE, suppress_default=True),
        Rule(6, 32764, 8, unless_mark=9),
    ]
