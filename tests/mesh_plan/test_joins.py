"""What a host that joins costs the others, counted in peers and bytes for meshes of ten to ten thousand hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import pytest

from edgefarm.abbotproto.envelope import pack_request
from reconciler.desired.mesh.members import Backbone, Member
from reconciler.desired.mesh.partners import Partners
from reconciler.desired.mesh.peers import peer_at_gateway
from reconciler.desired.mesh.requests import Ensure, edge_peers, host_config, peer_update, update
from tests.mesh_plan.kit import backbone, edge, gateway, networks

SIZES = (10, 1_000, 10_000)
GATEWAYS = (gateway(1), gateway(2))
MOST = 16


@dataclass(frozen=True)
class Cost:
    """Of one host that joins: peers that others have to add, replace or remove, and all bytes that are sent."""

    hosts: int
    peers: int
    bytes_to_gateways: int
    bytes_to_partners: int
    bytes_to_joining: int


class Mesh:
    """Edge hosts in their ring, as the reconciler remembers them; requests are made when a host joins."""

    def __init__(self, size: int, most: int, *, far: bool = False) -> None:
        self.most = most
        self.ring = Partners()
        self.members = {member.name: member for member in map(edge, range(1000, 1000 + size))}
        # A network outside the cluster's would have to be listed by everybody: one that is there already costs nothing.
        first = next(iter(self.members.values()))
        if far:
            self.members[first.name] = replace(first, extra_cidrs=networks("192.168.7.0/24"))
        for name in self.members:
            self.ring.add(name)
        self.backbone: Backbone = backbone(*GATEWAYS, *self.members.values())

    def whole(self, name: str) -> Ensure:
        member = self.members[name]
        partners = [self.members[other] for other in self.ring.of(name, self.most)]
        return host_config(member, edge_peers(member, self.backbone, partners))

    def join(self, member: Member) -> Cost:
        self.members[member.name] = member
        affected = self._neighbourhood(member.name)
        before = {name: self.whole(name) for name in affected}
        self.ring.add(member.name)
        updates = [update(self.members[name], sent, self.whole(name)) for name, sent in before.items()]
        to_partners = [request for request in updates if request is not None]
        to_gateways = [peer_update(each, [peer_at_gateway(member, each)], ()) for each in GATEWAYS]
        return Cost(
            hosts=len(to_partners) + len(to_gateways),
            peers=sum(map(_peers, [*to_partners, *to_gateways])),
            bytes_to_gateways=_bytes(to_gateways),
            bytes_to_partners=_bytes(to_partners),
            bytes_to_joining=_bytes([self.whole(member.name)]),
        )

    def _neighbourhood(self, name: str) -> set[str]:
        """All that could be affected: the partners that it will have, and theirs."""
        self.ring.add(name)
        near = set(self.ring.of(name, self.most))
        self.ring.remove(name)
        return near | {other for each in near for other in self.ring.of(each, self.most)}


def _peers(request: Ensure) -> int:
    told = request.expected[0].wireguard
    assert told.partial
    return len(told.peers) + len(told.removed_peers)


def _bytes(requests: Iterable[Ensure]) -> int:
    return sum(len(pack_request(request)) for request in requests)


@cache
def cost(size: int, most: int) -> Cost:
    """Of the same host that joins a mesh of `size`."""
    return Mesh(size, most).join(edge(77))


@pytest.mark.parametrize("size", SIZES)
def test_with_relay_alone_a_host_that_joins_changes_one_peer_at_each_gateway_and_nothing_else(size: int) -> None:
    joined = cost(size, 0)
    assert (joined.hosts, joined.peers, joined.bytes_to_partners) == (len(GATEWAYS), len(GATEWAYS), 0)


def test_with_relay_alone_what_is_sent_does_not_depend_on_how_many_hosts_there_are() -> None:
    assert len({cost(size, 0) for size in SIZES}) == 1
    assert cost(10, 0).bytes_to_gateways < 600
    assert cost(10, 0).bytes_to_joining < 600


@pytest.mark.parametrize("size", SIZES)
def test_with_direct_paths_it_changes_no_more_others_than_it_has_partners(size: int) -> None:
    joined = cost(size, MOST)
    assert joined.hosts <= MOST + len(GATEWAYS)
    # Each partner gets one peer and gives up one at most.
    assert joined.peers <= 2 * MOST + len(GATEWAYS)


def test_with_direct_paths_what_is_sent_does_not_grow_with_the_mesh() -> None:
    small, large = cost(1_000, MOST), cost(10_000, MOST)
    assert (small.hosts, small.peers) == (large.hosts, large.peers)
    assert small.bytes_to_gateways == large.bytes_to_gateways
    # Some names of interfaces' addresses are a digit longer.
    assert abs(large.bytes_to_partners - small.bytes_to_partners) <= 16 * MOST
    assert abs(large.bytes_to_joining - small.bytes_to_joining) <= 16 * MOST


def test_a_network_that_all_must_list_does_not_make_later_hosts_dearer() -> None:
    joined = Mesh(1_000, 0, far=True).join(edge(77))
    assert joined == replace(cost(1_000, 0), bytes_to_joining=joined.bytes_to_joining)
    assert joined.bytes_to_joining - cost(1_000, 0).bytes_to_joining == len(GATEWAYS) * len("__192.168.7.0/24")


def test_the_whole_request_of_a_gateway_is_the_only_one_that_grows() -> None:
    sizes = []
    for size in SIZES:
        members = map(edge, range(1000, 1000 + size))
        sizes.append(_bytes([host_config(GATEWAYS[0], [peer_at_gateway(each, GATEWAYS[0]) for each in members])]))
    per_host = (sizes[2] - sizes[0]) / (SIZES[2] - SIZES[0])
    assert 60 < per_host < 90


def test_every_join_on_the_way_to_ten_thousand_hosts_changes_few_others() -> None:
    ring = Partners()
    for number in range(10_000):
        name = f"edge-{number}"
        ring.add(name)
        assert len(ring.of(name, MOST)) == min(number, MOST)
