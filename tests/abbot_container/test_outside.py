"""How containers are seen from outside their host, and how their network follows a change of the host's subnets."""

from __future__ import annotations

import pytest

from localcluster.netns import Namespace
from tests.abbot_container.conftest import IPV6, Failed, Host, addresses, ask
from tests.netkit import needs_root_network

pytestmark = needs_root_network


def neighbour(host: Host, short: str, interface: str, network: int) -> Namespace:
    """A host at the other end of `interface`, which has a route to the containers."""
    other = host.spaces.add(short)
    host.spaces.link(
        host.space,
        interface,
        other,
        "eth0",
        a_addresses=[f"192.0.{network}.1/24", f"fd00:{network}::1/64"],
        b_addresses=[f"192.0.{network}.2/24", f"fd00:{network}::2/64"],
    )
    other.ip("route", "add", "10.77.0.0/16", "via", f"192.0.{network}.1")
    other.ip("route", "add", "fd00:77::/32", "via", f"fd00:{network}::1")
    host.listen(other, 9000)
    return other


def test_containers_bear_the_hosts_address_outside_and_their_own_in_the_mesh(host: Host) -> None:
    outside = neighbour(host, "outside", "eth0", 2)
    mesh = neighbour(host, "mesh", "edgefarm0", 3)
    host.configure(ipv6=IPV6)
    host.space.route_packets()
    pod = host.pod("pod")
    ipv4, ipv6 = host.addresses("one", pod)
    assert ask(pod, "192.0.2.2", 9000) == "192.0.2.1"
    assert ask(pod, "fd00:2::2", 9000) == "fd00:2::1"
    assert ask(pod, "192.0.3.2", 9000) == ipv4
    assert ask(pod, "fd00:3::2", 9000) == ipv6
    host.listen(pod, 9001)
    assert ask(mesh, ipv4, 9001) == "192.0.3.2", "the mesh reaches the container and is seen by it"
    assert ask(outside, ipv4, 9001) == "192.0.2.2"


def test_nothing_is_masqueraded_where_the_settings_say_so(host: Host) -> None:
    neighbour(host, "outside", "eth0", 2)
    plain = host.with_(masquerade=False)
    plain.configure()
    pod = plain.pod("pod")
    (ipv4,) = plain.addresses("one", pod)
    assert ask(pod, "192.0.2.2", 9000) == ipv4
    assert "inet abbot" not in host.space.run(["nft", "list", "tables"])


def test_the_masquerade_goes_with_the_subnets_and_foreign_tables_stay(host: Host) -> None:
    host.space.run(["nft", "add", "table", "inet", "foreign"])
    host.configure()
    assert "inet abbot" in host.space.run(["nft", "list", "tables"])
    host.configure(ipv4="")
    assert host.space.run(["nft", "list", "tables"]).split("\n") == ["table inet foreign", ""]


def test_the_masquerade_is_back_when_the_daemon_starts_after_a_reboot(host: Host) -> None:
    host.configure()
    host.space.run(["nft", "flush", "ruleset"])
    host.call("query_config")
    assert "inet abbot" in host.space.run(["nft", "list", "tables"])


def test_the_subnets_and_dns_are_remembered(host: Host) -> None:
    assert host.call("query_config") == {}
    dns = {"servers": ["10.96.0.10"], "searches": ["cluster.local"], "options": ["ndots:5"]}
    assert host.configure(ipv6=IPV6, dns=dns) == {}
    assert host.call("query_config") == {"ipv4_subnet": "10.77.1.0/24", "ipv6_subnet": IPV6, "dns": dns}


def test_containers_move_into_a_new_subnet_and_the_answer_tells_their_addresses(host: Host) -> None:
    host.configure(ipv6=IPV6)
    one, two, gone = host.pod("one"), host.pod("two"), host.pod("gone")
    for name, pod in (("one", one), ("two", two), ("gone", gone)):
        host.ensure(name, pod)
    host.spaces.remove(gone)
    networks = host.configure(ipv4="10.77.2.0/24", ipv6=IPV6)["container_networks"]
    assert addresses(networks["one"]) == ["10.77.2.2", "fd00:77:1::2"], "what still fits is kept"
    assert addresses(networks["two"]) == ["10.77.2.3", "fd00:77:1::3"]
    assert "interfaces" not in networks["gone"]
    assert "10.77.1.1/24" not in host.space.ip("address", "show", "dev", "abbot0")
    host.listen(two, 9000)
    assert ask(one, "10.77.2.3", 9000) == "10.77.2.2"
    host.listen(host.space, 9001)
    assert ask(one, "10.77.2.1", 9001) == "10.77.2.2"
    for name in ("one", "two", "gone"):
        host.delete(name)
    assert host.state()["reserved"] == []


def test_containers_stay_as_they_are_when_the_same_subnets_are_told_again_or_none(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    answer = host.ensure("one", pod)
    assert host.configure()["container_networks"] == {"one": answer}
    assert host.configure(ipv4="")["container_networks"] == {"one": answer}
    with pytest.raises(Failed, match="no subnets for containers yet"):
        host.ensure("two", host.pod("two"))
    host.delete("one")


def test_wrong_subnets_are_refused_and_the_old_ones_stay(host: Host) -> None:
    host.configure()
    with pytest.raises(Failed) as failed:
        host.configure(ipv4="rubbish")
    assert failed.value.kind == "InvalidMessage"
    assert host.call("query_config") == {"ipv4_subnet": "10.77.1.0/24"}
