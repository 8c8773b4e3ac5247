"""Assigns the mesh's addresses: lowest free first, fixed ones where they can be had, never one to two devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Generic, TypeVar

from reconciler.desired.mesh.claims import Refusal, Seniority
from reconciler.desired.mesh.members import NO_ADDRESSES, MeshAddresses

A = TypeVar("A", IPv4Address, IPv6Address)

#: The network's own address and the first one, which people expect to be a router.
_KEPT_AT_START: Final = 2


@dataclass(frozen=True)
class Wish:
    """A device that shall have addresses, and those that its spec fixes."""

    device: str
    seniority: Seniority
    fixed: MeshAddresses = NO_ADDRESSES


@dataclass(frozen=True)
class _Holder:
    device: str
    seniority: Seniority


class _Pool(Generic[A]):
    """The addresses of one block, by their offset in it."""

    def __init__(self, base: int, size: int, make: Callable[[int], A], *, broadcast: bool) -> None:
        self._base = base
        self._offsets = range(_KEPT_AT_START, size - broadcast)
        self._make: Callable[[int], A] = make
        self._holders: dict[int, _Holder] = {}
        self._of: dict[str, int] = {}
        #: Everything from here on was never given away in turn; what is lower and free again is in the heap.
        self._next = _KEPT_AT_START
        self._released: list[int] = []

    def holder(self, address: A) -> _Holder | None:
        return self._holders.get(int(address) - self._base)

    def held(self, device: str) -> A | None:
        offset = self._of.get(device)
        return None if offset is None else self._make(self._base + offset)

    def usable(self, address: A) -> bool:
        return int(address) - self._base in self._offsets

    def take(self, address: A, holder: _Holder) -> None:
        """Make it the device's only one; the caller has looked at who else holds it."""
        self.release(holder.device)
        offset = int(address) - self._base
        self._holders[offset] = holder
        self._of[holder.device] = offset

    def take_lowest(self, holder: _Holder) -> A | None:
        while self._released:
            offset = heappop(self._released)
            if offset not in self._holders:
                break
        else:
            while self._next in self._holders:
                self._next += 1
            if self._next not in self._offsets:
                return None
            offset = self._next
        address = self._make(self._base + offset)
        self.take(address, holder)
        return address

    def release(self, device: str) -> None:
        offset = self._of.pop(device, None)
        if offset is not None:
            del self._holders[offset]
            if offset < self._next:
                heappush(self._released, offset)


class Allocations:
    """Which device holds which addresses.

    One object serves all workers of the leading reconciler. Looking for an address and taking it is one step without
    waiting in it, so two workers never get the same one. What devices have in their statuses is told with `hold`
    before anything is assigned; an older leader may still have written something meanwhile, which `hold` finds.
    """

    def __init__(self, ipv4_block: IPv4Network, ipv6_block: IPv6Network | None) -> None:
        self.blocks = (ipv4_block, ipv6_block)
        self._ipv4 = _Pool(int(ipv4_block[0]), ipv4_block.num_addresses, IPv4Address, broadcast=True)
        self._ipv6 = (
            _Pool(int(ipv6_block[0]), ipv6_block.num_addresses, IPv6Address, broadcast=False) if ipv6_block else None
        )

    def held(self, device: str) -> MeshAddresses:
        """What the device has."""
        return MeshAddresses(self._ipv4.held(device), self._ipv6.held(device) if self._ipv6 else None)

    def hold(self, device: str, seniority: Seniority, claimed: MeshAddresses) -> tuple[str, ...]:
        """Take note of the addresses in a device's status. Return the devices that lose theirs to it.

        What the device has been assigned here counts more than its status, which may be older. Of two devices with one
        address the older one keeps it. Addresses outside the blocks are passed over, and so assigned anew.
        """
        holder = _Holder(device, seniority)
        losers = [_hold(self._ipv4, claimed.ipv4, holder)]
        if self._ipv6 is not None:
            losers.append(_hold(self._ipv6, claimed.ipv6, holder))
        return tuple(dict.fromkeys(loser for loser in losers if loser is not None))

    def assign(self, wish: Wish) -> MeshAddresses | Refusal:
        """The device's addresses: those that it fixes, else those that it has, else the lowest free ones.

        What another device holds is never taken from it. After a refusal the device has what it had before.
        """
        holder = _Holder(wish.device, wish.seniority)
        if wish.fixed.ipv6 is not None and self._ipv6 is None:
            return Refusal("AddressOutsideBlock", f"{wish.fixed.ipv6} cannot be had: the mesh has no mesh.ipv6Block")
        before = self.held(wish.device)
        ipv4 = _assign(self._ipv4, wish.fixed.ipv4, holder, "mesh.ipv4Block", self.blocks[0])
        if isinstance(ipv4, Refusal) or self._ipv6 is None:
            return ipv4 if isinstance(ipv4, Refusal) else MeshAddresses(ipv4)
        ipv6 = _assign(self._ipv6, wish.fixed.ipv6, holder, "mesh.ipv6Block", self.blocks[1])
        if not isinstance(ipv6, Refusal):
            return MeshAddresses(ipv4, ipv6)
        # Nobody else can have got the old one: nothing waited since it was given back.
        self._ipv4.release(wish.device)
        if before.ipv4 is not None:
            self._ipv4.take(before.ipv4, holder)
        return ipv6

    def release(self, device: str) -> None:
        """Free what the device has."""
        self._ipv4.release(device)
        if self._ipv6 is not None:
            self._ipv6.release(device)


def _hold(pool: _Pool[A], claimed: A | None, holder: _Holder) -> str | None:
    """The device that loses the address to the holder."""
    if claimed is None or not pool.usable(claimed) or pool.held(holder.device) is not None:
        return None
    other = pool.holder(claimed)
    if other is not None and other.seniority < holder.seniority:
        return None
    if other is not None:
        pool.release(other.device)
    pool.take(claimed, holder)
    return None if other is None else other.device


def _assign(
    pool: _Pool[A], fixed: A | None, holder: _Holder, member: str, block: IPv4Network | IPv6Network | None
) -> A | Refusal:
    held = pool.held(holder.device)
    if fixed is None:
        address = held if held is not None else pool.take_lowest(holder)
        if address is None:
            return Refusal("BlockExhausted", f"{member} ({block}) has no free address: make it larger")
        return address
    if not pool.usable(fixed):
        kept = "the network's own, its first and its broadcast address cannot be had"
        return Refusal("AddressOutsideBlock", f"{fixed} is not one of the devices' addresses of {block}: {kept}")
    other = pool.holder(fixed)
    if other is not None and other.device != holder.device:
        return Refusal("AddressTaken", f"{fixed} is the address of {other.device}: write another one")
    if other is None:
        pool.take(fixed, holder)
    return fixed
