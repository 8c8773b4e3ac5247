"""The mesh's addresses: lowest free first, and never one to two devices, whatever the order of things."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.mesh.allocation import Allocations, Wish
from reconciler.desired.mesh.claims import Refusal
from reconciler.desired.mesh.members import MeshAddresses
from tests.mesh_plan.kit import age

BLOCK = IPv4Network("10.201.0.0/16")


def allocations(block: str = "10.201.0.0/16", block6: str | None = None) -> Allocations:
    return Allocations(IPv4Network(block), IPv6Network(block6) if block6 else None)


def wish(number: int, ipv4: str | None = None, ipv6: str | None = None) -> Wish:
    return Wish(f"edge-{number}", age(number), addresses(ipv4, ipv6))


def addresses(ipv4: str | None = None, ipv6: str | None = None) -> MeshAddresses:
    return MeshAddresses(IPv4Address(ipv4) if ipv4 else None, IPv6Address(ipv6) if ipv6 else None)


def refused(answer: MeshAddresses | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


def test_addresses_are_given_from_the_second_on_in_both_families() -> None:
    made = allocations(block6="fd00:201::/64")
    assert made.assign(wish(1)) == addresses("10.201.0.2", "fd00:201::2")
    assert made.assign(wish(2)) == addresses("10.201.0.3", "fd00:201::3")
    assert made.assign(wish(1)) == addresses("10.201.0.2", "fd00:201::2")


def test_the_lowest_address_that_is_free_again_is_given_first() -> None:
    made = allocations()
    for number in range(10):
        made.assign(wish(number))
    for number in (7, 3, 5):
        made.release(f"edge-{number}")
    given_again = [made.assign(wish(number)) for number in (20, 21, 22, 23)]
    assert given_again == [addresses(f"10.201.0.{last}") for last in (5, 7, 9, 12)]


def test_a_claim_in_a_status_is_kept() -> None:
    made = allocations()
    assert made.hold("edge-9", age(9), addresses("10.201.7.7")) == ()
    assert made.assign(wish(9)) == addresses("10.201.7.7")
    assert made.assign(wish(1)) == addresses("10.201.0.2")


def test_what_was_assigned_here_counts_more_than_an_older_status() -> None:
    made = allocations()
    assert made.assign(wish(1)) == addresses("10.201.0.2")
    made.hold("edge-1", age(1), addresses("10.201.0.99"))
    assert made.assign(wish(1)) == addresses("10.201.0.2")


@pytest.mark.parametrize("first", [1, 2])
def test_of_two_devices_with_one_address_the_older_keeps_it(first: int) -> None:
    made = allocations()
    second = 3 - first
    made.hold(f"edge-{first}", age(first), addresses("10.201.0.2"))
    losers = made.hold(f"edge-{second}", age(second), addresses("10.201.0.2"))
    assert losers == (("edge-2",) if first == 2 else ())
    assert made.assign(wish(1)) == addresses("10.201.0.2")
    assert made.assign(wish(2)) == addresses("10.201.0.3")


def test_a_fixed_address_wins_over_the_one_that_was_assigned() -> None:
    made = allocations(block6="fd00:201::/64")
    made.assign(wish(1))
    assert made.assign(wish(1, "10.201.0.50", "fd00:201::50")) == addresses("10.201.0.50", "fd00:201::50")
    assert made.assign(wish(2)) == addresses("10.201.0.2", "fd00:201::2")


def test_a_fixed_address_never_takes_another_devices() -> None:
    made = allocations(block6="fd00:201::/64")
    made.assign(wish(2))
    answer = refused(made.assign(wish(1, "10.201.0.2")))
    assert answer == Refusal("AddressTaken", "10.201.0.2 is the address of edge-2: write another one")
    assert made.held("edge-1") == addresses()


@pytest.mark.parametrize("fixed", ["10.201.0.0", "10.201.0.1", "10.201.255.255", "10.202.0.2", "10.200.255.255"])
def test_a_fixed_address_must_be_one_of_the_blocks_own(fixed: str) -> None:
    made = allocations()
    assert refused(made.assign(wish(1, fixed))).reason == "AddressOutsideBlock"


def test_a_fixed_address_of_a_family_without_a_block_is_refused() -> None:
    made = allocations()
    assert "mesh.ipv6Block" in refused(made.assign(wish(1, ipv6="fd00:201::7"))).message
    assert made.held("edge-1") == addresses()


def test_a_refusal_of_one_family_leaves_the_other_as_it_was() -> None:
    made = allocations(block6="fd00:201::/64")
    made.assign(wish(1))
    made.assign(wish(2))
    refused(made.assign(wish(1, "10.201.0.50", "fd00:201::3")))
    assert made.held("edge-1") == addresses("10.201.0.2", "fd00:201::2")
    assert made.assign(wish(3)) == addresses("10.201.0.4", "fd00:201::4")
    refused(made.assign(wish(4, ipv6="fd00:201::3")))
    assert made.held("edge-4") == addresses()


def test_a_block_that_is_full_says_so_until_something_is_free() -> None:
    made = allocations("10.201.0.0/29")
    given_out = [made.assign(wish(number)) for number in range(5)]
    assert given_out == [addresses(f"10.201.0.{last}") for last in range(2, 7)]
    assert refused(made.assign(wish(5))) == Refusal(
        "BlockExhausted", "mesh.ipv4Block (10.201.0.0/29) has no free address: make it larger"
    )
    made.release("edge-3")
    assert made.assign(wish(5)) == addresses("10.201.0.5")


def test_addresses_of_an_earlier_block_are_assigned_anew() -> None:
    made = allocations("10.77.0.0/24")
    made.hold("edge-1", age(1), addresses("10.201.0.2"))
    made.hold("edge-2", age(2), addresses("10.77.0.2"))
    assert made.assign(wish(2)) == addresses("10.77.0.2")
    assert made.assign(wish(1)) == addresses("10.77.0.3")


def test_ten_thousand_devices_get_ten_thousand_addresses() -> None:
    made = allocations()
    for number in range(0, 10_000, 3):
        made.hold(f"edge-{number}", age(number), MeshAddresses(BLOCK[2 + number]))
    found = {made.assign(wish(number)) for number in range(10_000)}
    assert len(found) == 10_000
    assert max(each.ipv4 for each in found if isinstance(each, MeshAddresses) and each.ipv4) < BLOCK[10_100]


@dataclass
class Cluster:
    """What several reconcilers see: statuses in the API server, which accepts a write of the read version only.

    Each leader has its own memory. A pass reads (stale or not), decides, and writes in a step of its own.
    """

    statuses: dict[str, MeshAddresses] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def write(self, device: str, version: int, value: MeshAddresses) -> bool:
        if self.versions.get(device, 0) != version:
            return False
        self.statuses[device] = value
        self.versions[device] = version + 1
        return True

    def leader(self) -> Allocations:
        made = Allocations(IPv4Network("10.201.0.0/27"), None)
        for device, status in self.statuses.items():
            made.hold(device, age(int(device.removeprefix("edge-"))), status)
        return made


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "elect", "fix", "delete"]),
        st.integers(min_value=0, max_value=7),
        st.integers(min_value=2, max_value=12),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_interleaving_of_passes_and_leaders_leaves_two_devices_with_one_address(
    steps: list[tuple[str, int, int]],
) -> None:
    cluster = Cluster()
    leader = cluster.leader()
    fixed: dict[str, str] = {}
    pending: dict[str, tuple[int, MeshAddresses]] = {}
    for action, number, last in steps:
        device = f"edge-{number}"
        if action == "read":
            _pass_of(cluster, leader, number, fixed, pending)
        elif action == "write" and device in pending:
            version, value = pending.pop(device)
            cluster.write(device, version, value)
        elif action == "elect":
            # What the old leader has decided may still be written: nothing here takes it back.
            leader = cluster.leader()
        elif action == "fix":
            fixed[device] = f"10.201.0.{last}"
        elif action == "delete":
            cluster.statuses.pop(device, None)
            pending.pop(device, None)
            cluster.versions[device] = cluster.versions.get(device, 0) + 1
            fixed.pop(device, None)
            leader.release(device)
        _no_address_is_held_twice(leader)
    for device, (version, value) in pending.items():
        cluster.write(device, version, value)
    leader = cluster.leader()
    # Those that lose an address to an older one are looked at again, in any order: two rounds settle it.
    for _ in range(2):
        for device in list(cluster.statuses):
            pending = {}
            _pass_of(cluster, leader, int(device.removeprefix("edge-")), fixed, pending)
            for each, (version, value) in pending.items():
                cluster.write(each, version, value)
    found = [status.ipv4 for status in cluster.statuses.values() if status.ipv4]
    assert len(found) == len(set(found))


def _pass_of(
    cluster: Cluster,
    leader: Allocations,
    number: int,
    fixed: dict[str, str],
    pending: dict[str, tuple[int, MeshAddresses]],
) -> None:
    device = f"edge-{number}"
    status = cluster.statuses.get(device, MeshAddresses())
    leader.hold(device, age(number), status)
    answer = leader.assign(wish(number, fixed.get(device)))
    if isinstance(answer, Refusal):
        # It keeps what it had, or has none; its status says so.
        answer = leader.held(device)
    pending[device] = (cluster.versions.get(device, 0), answer)


def _no_address_is_held_twice(leader: Allocations) -> None:
    held = [leader.held(f"edge-{number}").ipv4 for number in range(8)]
    taken = [address for address in held if address is not None]
    assert len(taken) == len(set(taken))
