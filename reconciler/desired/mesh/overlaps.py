"""Decides which networks a device gets routed: none that the mesh, the cluster, an older device or its own host has."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, NamedTuple, TypeAlias

from edgefarm.addresses import Network, inside, overlap
from reconciler.desired.mesh.claims import Refusal, Seniority

HostAddress: TypeAlias = IPv4Interface | IPv6Interface

#: How much a Node's pod CIDR is widened to guess the cluster's: what the controller manager takes by default.
_WIDENED: Final = 8
#: No guess is wider than this.
_WIDEST: Final = {4: 8, 6: 32}


@dataclass(frozen=True)
class Ground:
    """The networks that no device may take: the mesh's blocks, and the cluster's, out of which pod CIDRs may be."""

    blocks: tuple[Network, ...]
    pods: tuple[Network, ...] = ()
    services: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The networks that a device wants routed to it."""

    device: str
    seniority: Seniority
    pod_cidrs: tuple[Network, ...] = ()
    extra_cidrs: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Granted:
    """Which of them it gets, why not the others, and which younger devices lost theirs to it."""

    pod_cidrs: tuple[Network, ...] = ()
    extra_cidrs: tuple[Network, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    losers: tuple[str, ...] = ()


class _Holding(NamedTuple):
    """A network that a device has; no two of them overlap. Ordered by family and place."""

    version: int
    first: int
    last: int
    device: str = ""


class Territory:
    """Which device has which networks, in the order of their addresses: looking for an overlap takes log n steps."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._holdings: list[_Holding] = []
        self._of: dict[str, tuple[Seniority, tuple[_Holding, ...]]] = {}

    def claim(self, wanted: Wanted) -> Granted:
        """Give the device what it wants instead of what it had, as far as nobody older has it.

        Losers must claim again: they then hear who has it.
        """
        self.release(wanted.device)
        refusals: list[Refusal] = []
        losers: list[str] = []
        held: list[_Holding] = []
        granted: tuple[list[Network], list[Network]] = ([], [])
        for kind, cidrs in enumerate((wanted.pod_cidrs, wanted.extra_cidrs)):
            for cidr in cidrs:
                others = self._overlapping(cidr)
                refusal = self._on_ground(cidr, pod=kind == 0) or self._taken(cidr, wanted.seniority, others)
                if refusal is None and any(_overlap(each, _holding(cidr)) for each in held):
                    refusal = Refusal("NetworkTwice", f"{cidr} overlaps another network of the device: name it once")
                if refusal is not None:
                    refusals.append(refusal)
                    continue
                for other in others:
                    self._give_up(other)
                    losers.append(other.device)
                held.append(_holding(cidr, wanted.device))
                granted[kind].append(cidr)
        for each in held:
            insort(self._holdings, each)
        self._of[wanted.device] = (wanted.seniority, tuple(held))
        return Granted(tuple(granted[0]), tuple(granted[1]), tuple(refusals), tuple(dict.fromkeys(losers)))

    def release(self, device: str) -> None:
        """Free what the device has."""
        _, held = self._of.pop(device, (None, ()))
        for each in held:
            del self._holdings[bisect_left(self._holdings, each)]

    def _give_up(self, holding: _Holding) -> None:
        seniority, held = self._of[holding.device]
        self._of[holding.device] = (seniority, tuple(each for each in held if each != holding))
        del self._holdings[bisect_left(self._holdings, holding)]

    def _overlapping(self, cidr: Network) -> list[_Holding]:
        """Those that overlap it. None of them overlaps another, so they stand beside each other."""
        wanted = _holding(cidr)
        index = bisect_left(self._holdings, wanted)
        while index > 0 and _overlap(self._holdings[index - 1], wanted):
            index -= 1
        found = []
        while index < len(self._holdings) and _overlap(self._holdings[index], wanted):
            found.append(self._holdings[index])
            index += 1
        return found

    def _on_ground(self, cidr: Network, *, pod: bool) -> Refusal | None:
        ground = self.ground
        for what, networks in (("the mesh's block", ground.blocks), ("the services' network", ground.services)):
            found = next((network for network in networks if overlap(cidr, network)), None)
            if found is not None:
                return Refusal("NetworkOverlaps", f"{cidr} overlaps {what} {found}: use another network")
        found = next((network for network in ground.pods if overlap(cidr, network)), None)
        if found is None or (pod and inside(cidr, found)):
            return None
        return Refusal("NetworkOverlaps", f"{cidr} overlaps the pods' network {found}: use another network")

    def _taken(self, cidr: Network, seniority: Seniority, others: Iterable[_Holding]) -> Refusal | None:
        older = next((each.device for each in others if self._of[each.device][0] < seniority), None)
        if older is None:
            return None
        return Refusal("NetworkTaken", f"{cidr} overlaps a network of {older}, which is older: use another network")


def own_network_refusal(
    addresses: Iterable[HostAddress], ground: Ground, *, own: Sequence[Network] = ()
) -> Refusal | None:
    """Whether a host is in a network itself that the mesh would take from it.

    `addresses` with their networks are the host's, without those of its mesh interface; `own` are networks that are
    routed to the host anyway. Single addresses out of the services' network are what kube-proxy gives to nodes.
    """
    for address in addresses:
        network = address.network
        if network.is_loopback or network.is_link_local or any(inside(network, each) for each in own):
            continue
        block = next((each for each in ground.blocks if overlap(network, each)), None)
        if block is not None:
            return _in_the_way(network, f"the mesh's block {block}", "write another block in the configuration")
        single = network.num_addresses == 1
        service = next((each for each in ground.services if overlap(network, each)), None)
        if service is not None and not single:
            return _in_the_way(network, f"the cluster's services {service}", "it cannot reach all of them")
    return None


def pod_networks(cidrs: Iterable[Network], avoid: Sequence[Network]) -> tuple[Network, ...]:
    """The cluster's pod networks, guessed from the pod CIDRs of its Nodes.

    Each is widened as far as the controller manager's default says (a /24 to its /16), so that a new Node changes
    nothing, unless that would overlap one of `avoid`.
    """
    found: dict[Network, None] = {}
    for cidr in sorted(cidrs, key=lambda each: (each.version, each)):
        if any(inside(cidr, network) for network in found):
            continue
        room = max(0, cidr.prefixlen - _WIDEST[cidr.version])
        wide = cidr.supernet(prefixlen_diff=min(_WIDENED, room))
        found[cidr if any(overlap(wide, each) for each in avoid) else wide] = None
    return tuple(found)


def _in_the_way(network: Network, what: str, advice: str) -> Refusal:
    message = f"the host is in the network {network}, which overlaps {what}: {advice}; or give the host another network"
    return Refusal("HostNetworkOverlaps", message)


def _holding(cidr: Network, device: str = "") -> _Holding:
    return _Holding(cidr.version, int(cidr[0]), int(cidr[-1]), device)


def _overlap(one: _Holding, other: _Holding) -> bool:
    return one.version == other.version and one.first <= other.last and other.first <= one.last
