"""What one more device costs in a mesh of many: time to decide, and bytes that hosts are sent. No packets."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from edgefarm import names
from edgefarm.addresses import Network
from reconciler.desired.mesh.allocation import Allocations, Wish
from reconciler.desired.mesh.claims import Seniority
from reconciler.desired.mesh.members import Backbone, Interface, Member, MeshAddresses, in_order
from reconciler.desired.mesh.partners import Partners
from reconciler.desired.mesh.peers import direct_peer, peer_at_gateway
from reconciler.desired.mesh.requests import Ensure, edge_peers, host_config, peer_update
from reconciler.mesh_configuration import DirectConfiguration, MeshConfiguration
from tests.bench.edge.figures import Case, note

_SIZES: Final = (10, 1_000, 10_000)
_JOINS: Final = 200
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PODS: Final = IPv4Network("10.0.0.0/8")


@dataclass
class World:
    """Members as the reconciler keeps them."""

    backbone: Backbone
    members: dict[str, Member] = field(default_factory=dict)
    partners: Partners = field(default_factory=Partners)
    allocation: Allocations = field(init=False)

    def __post_init__(self) -> None:
        self.allocation = Allocations(self.backbone.configuration.ipv4_block, None)

    def join(self, index: int) -> list[Ensure]:
        """Let one more edge host in; the requests that this costs, its own whole one first."""
        member = self._member(index)
        most = self.backbone.configuration.direct.most
        self.partners.add(member.name)
        near = [self.members[name] for name in self.partners.of(member.name, most)] if most else []
        requests = [host_config(member, edge_peers(member, self.backbone, near))]
        for gateway in self.backbone.gateways:
            requests.append(peer_update(gateway, [peer_at_gateway(member, gateway)], ()))
        for partner in near:
            requests.append(peer_update(partner, [direct_peer(partner, member)], self._given_up(partner, member, most)))
        self.members[member.name] = member
        return requests

    def leave(self, index: int) -> None:
        """Take a host out again, so that the mesh has the size that a figure is about."""
        name = f"edge-{index}"
        del self.members[name]
        self.partners.remove(name)
        self.allocation.release(name)

    def _given_up(self, partner: Member, member: Member, most: int) -> Sequence[str]:
        """Keys of the partners that this one had and has no longer, now that `member` is nearer."""
        now = self.partners.of(partner.name, most)
        self.partners.remove(member.name)
        before = self.partners.of(partner.name, most)
        self.partners.add(member.name)
        return [self.members[name].public_key for name in set(before) - set(now)]

    def _member(self, index: int) -> Member:
        name, seniority = f"edge-{index}", Seniority(_START + timedelta(seconds=index), f"uid-{index}")
        addresses = self.allocation.assign(Wish(name, seniority))
        assert isinstance(addresses, MeshAddresses)
        return replace(
            _device(name, names.ROLE_EDGE, seniority),
            addresses=addresses,
            pod_cidrs=(_block_of_pods(index),),
            heard_at=f"203.0.113.{index % 250 + 1}:{20_000 + index}",
        )


def measure() -> None:
    """Joins at three sizes of the mesh, with relay alone and with direct paths."""
    for label, direct in (("relay", DirectConfiguration(enabled=False)), ("direct", DirectConfiguration())):
        for size in _SIZES:
            note(f"plan: {size} hosts, {label}")
            _measure(f"join a mesh of {size} hosts, {label}", size, direct)


def _measure(name: str, size: int, direct: DirectConfiguration) -> None:
    world = _world(direct)
    for index in range(size):
        world.join(index)
    seconds, own, others, peers = [], [], [], []
    for index in range(size, size + _JOINS):
        started = time.perf_counter()
        requests = world.join(index)
        lengths = [request.ByteSize() for request in requests]
        seconds.append(time.perf_counter() - started)
        world.leave(index)
        own.append(float(lengths[0]))
        others.append(float(sum(lengths[1:])))
        peers.append(float(sum(len(request.expected[0].wireguard.peers) for request in requests[1:])))
    case = Case(name, bench="mesh")
    case.say("plan", "ms", [value * 1000 for value in seconds])
    case.say("bytes_to_joining_host", "B", own)
    case.say("bytes_to_others", "B", others)
    case.say("peers_changed_at_others", "peers", peers)


def _world(direct: DirectConfiguration) -> World:
    configuration = MeshConfiguration(enabled=True, direct=direct)
    gateways = [
        replace(
            _device(f"gateway.gw-{index}", names.ROLE_GATEWAY, Seniority(_START, f"gw-{index}")),
            addresses=MeshAddresses(IPv4Address("10.201.255.1") + index),
            endpoint=f"198.51.100.{index + 1}:51820",
        )
        for index in range(2)
    ]
    services: tuple[Network, ...] = (IPv4Network("172.20.0.0/16"),)
    return World(Backbone(configuration, pods=(_PODS,), services=services, gateways=in_order(gateways)))


def _device(name: str, role: str, seniority: Seniority) -> Member:
    key = base64.b64encode(sha256(name.encode()).digest()).decode()
    interface = Interface("edgefarm0", mtu=1420, port=51820)
    return Member(name, role, seniority, interface, public_key=key, extended=True, connected=True)


def _block_of_pods(index: int) -> IPv4Network:
    return IPv4Network((int(_PODS.network_address) + (index << 8), 24))
