"""Who is in the mesh, and what follows for each host: kept in memory, told by the passes, and built anew from statuses.

Everything here happens between two awaits, so all workers see one state.
"""

from __future__ import annotations

from edgefarm.addresses import Network
from reconciler.desired.mesh.allocation import Allocations
from reconciler.desired.mesh.members import Backbone, Member, in_order, outside
from reconciler.desired.mesh.overlaps import Ground, Territory
from reconciler.desired.mesh.partners import Partners
from reconciler.desired.mesh.peers import Peer, may_be_direct, peer_at_gateway
from reconciler.desired.mesh.requests import Ensure, edge_peers, host_config
from reconciler.mesh_configuration import MeshConfiguration


class Roster:
    """The members by name. A member without a public key is nobody's peer yet."""

    def __init__(
        self, configuration: MeshConfiguration, ground: Ground, allocations: Allocations | None = None
    ) -> None:
        """`allocations` are those of an earlier roster with the same blocks."""
        self.configuration = configuration
        self.allocations = allocations or Allocations(configuration.ipv4_block, configuration.ipv6_block)
        self.territory = Territory(ground)
        self._members: dict[str, Member] = {}
        self._by_key: dict[str, str] = {}
        self._gateways: dict[str, Member] = {}
        self._outside: dict[str, tuple[Network, ...]] = {}
        self._ring = Partners()
        self._backbone: Backbone | None = None

    def get(self, device: str) -> Member | None:
        """The member of that name."""
        return self._members.get(device)

    def with_key(self, public_key: str) -> Member | None:
        """The member that has this key."""
        device = self._by_key.get(public_key)
        return None if device is None else self._members[device]

    def put(self, member: Member) -> None:
        """Let the member be as told from now on; the caller has made sure that nobody else has its key."""
        before = self._members.get(member.name)
        if before == member:
            return
        self.remove(member.name)
        self._members[member.name] = member
        if member.public_key:
            self._by_key[member.public_key] = member.name
        if member.gateway:
            self._gateways[member.name] = member
            self._backbone = None
        beyond = outside(member, self.territory.ground.pods)
        if beyond:
            self._outside[member.name] = beyond
            self._backbone = None
        if may_be_direct(member):
            self._ring.add(member.name)

    def remove(self, device: str) -> None:
        """Let nobody be of that name; its addresses and networks are another matter."""
        member = self._members.pop(device, None)
        if member is None:
            return
        self._by_key.pop(member.public_key, None)
        if device in self._gateways or device in self._outside:
            self._gateways.pop(device, None)
            self._outside.pop(device, None)
            self._backbone = None
        self._ring.remove(device)

    def release(self, device: str) -> None:
        """Free the addresses and networks of a device."""
        self.allocations.release(device)
        self.territory.release(device)

    @property
    def backbone(self) -> Backbone:
        """What is the same for all edge hosts."""
        if self._backbone is None:
            ground = self.territory.ground
            gateways = in_order(self._gateways.values())
            self._backbone = Backbone(self.configuration, ground.pods, ground.services, gateways, dict(self._outside))
        return self._backbone

    @property
    def gateways(self) -> tuple[Member, ...]:
        """Those with a known key, in order of preference."""
        return self.backbone.gateways

    def partners(self, device: str) -> tuple[Member, ...]:
        """The edge hosts with which this one tries a direct tunnel."""
        return tuple(self._members[name] for name in self._ring.of(device, self.configuration.direct.most))

    def without_failover(self) -> list[Member]:
        """The edge hosts whose abbots use the one gateway that they are told to use."""
        return [each for each in self._members.values() if not each.gateway and not each.extended]

    def whole(self, member: Member, private_key: str = "") -> Ensure:
        """All that the member's host shall be told."""
        if not member.gateway:
            peers = edge_peers(member, self.backbone, self.partners(member.name))
        else:
            others = (each for each in self._members.values() if each.public_key and each.name != member.name)
            peers = tuple(peer_at_gateway(other, member) for other in others)
        return host_config(member, peers, private_key=private_key)

    def peer_at(self, gateway: Member, public_key: str) -> Peer | None:
        """What a gateway shall be told about the key; None: it shall have no such peer."""
        member = self.with_key(public_key)
        return None if member is None or member.name == gateway.name else peer_at_gateway(member, gateway)
