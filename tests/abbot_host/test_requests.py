"""What is asked for is checked before anything is changed, and no error repeats a key."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from abbot.host.keys import make_key, public_key
from abbot.host.requests import check_request
from abbot.host.specs import InterfaceSpec, decode, encode
from abbot.netlink.values import PortSettings
from abbot.wireguard.endpoints import Resolver, normal_endpoint
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage
from tests.abbot_host.kit import Keys, bridge, peer, tunnel

FAR = Keys()
OWN = Keys()
SECRET = make_key()
NO_KEY = "c2VjcmV0IHRoYXQgaXMgbm8ga2V5"


def wg(*peers: pb.DriverWireguard.Peer, **settings: Any) -> pb.HostNetworkInterface:
    return tunnel("wg0", peers=peers, **settings)


@pytest.mark.parametrize(
    ("interface", "where"),
    [
        (tunnel(""), "name"),
        (tunnel("a" * 16), "name"),
        (tunnel("a/b"), "name"),
        (tunnel("a b"), "name"),
        (tunnel("a:b"), "name"),
        (tunnel("wg%d"), "name"),
        (tunnel(".."), "name"),
        (tunnel("lo"), "name"),
        (pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="x0")), "config"),
        (pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="x0"), unknown=pb.DriverUnknown()), "config"),
        (pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="x0"), provider="b", bridge={}), "provider"),
        (tunnel("wg0", "10.0.0.1"), "addresses"),
        (tunnel("wg0", "10.0.0.1/33"), "addresses"),
        (tunnel("wg0", "224.0.0.1/24"), "addresses"),
        (tunnel("wg0", mtu=1279), "mtu"),
        (bridge("br0", mtu=67), "mtu"),
        (bridge("br0", "fd00::1/64", mtu=1279), "mtu"),
        (bridge("br0", mtu=65536), "mtu"),
        (bridge("br0", mac="02:00:00:00:00"), "hardware_address"),
        (bridge("br0", mac="01:00:00:00:00:01"), "hardware_address"),
        (bridge("br0", alias="x" * 256), "alias"),
        (bridge("br0", tx_queue_len=-1), "tx_queue_len"),
        (wg(private_key=NO_KEY), "private_key"),
        (wg(listen_port=65536), "listen_port"),
        (wg(log_level="loud"), "log_level"),
        (wg(routing={"table": 255}), "routing.table"),
        (wg(routing={"table": -1}), "routing.table"),
        (wg(routing={"firewall_mark": -1}), "routing.firewall_mark"),
        (wg(peer("")), "peers[0].public_key"),
        (wg(peer(NO_KEY)), "peers[0].public_key"),
        (wg(peer(FAR.public, pre_shared_key=NO_KEY)), "peers[0].pre_shared_key"),
        (wg(peer(FAR.public, endpoint="192.0.2.1")), "peers[0].endpoint"),
        (wg(peer(FAR.public, candidates=["192.0.2.1:0"])), "peers[0].candidates"),
        (wg(peer(FAR.public, persistent_keepalive_interval=-1)), "peers[0].persistent_keepalive_interval"),
        (wg(peer(FAR.public, "10.0.0.0/33")), "peers[0].allowed_ips"),
        (wg(peer(FAR.public, "fe80::1/128")), "peers[0].allowed_ips"),
        (wg(peer(FAR.public), peer(FAR.public)), "peers[1].public_key"),
        (wg(peer(OWN.public), private_key=OWN.private), "peers[0].public_key"),
        (wg(removed_peers=[FAR.public]), "removed_peers"),
        (wg(partial=True, removed_peers=[NO_KEY]), "removed_peers[0]"),
        (wg(peer(FAR.public), partial=True, removed_peers=[FAR.public]), "removed_peers[0]"),
        (wg(peer(FAR.public, "::/0"), routing={"enabled": True}), "routing.table"),
    ],
)
def test_a_wrong_field_is_named_with_its_interface(interface: pb.HostNetworkInterface, where: str) -> None:
    with pytest.raises(InvalidMessage) as error:
        check_request("mesh", [interface])
    assert str(error.value).startswith("interface ")
    assert where in str(error.value)
    assert NO_KEY not in str(error.value)
    assert OWN.private not in str(error.value)


def test_a_request_needs_a_provider_and_different_names() -> None:
    with pytest.raises(InvalidMessage, match="no provider"):
        check_request("", [])
    with pytest.raises(InvalidMessage, match="interface wg0 is listed twice"):
        check_request("mesh", [wg(), wg()])


def test_what_is_right_is_put_into_normal_form_and_survives_the_disk() -> None:
    far = peer(FAR.public, "10.1.2.3/8", "10.0.0.0/8", endpoint="Host.Example:7", pre_shared_key=SECRET)
    asked = [
        tunnel("wg0", "10.0.0.1/24", "fd00:0::1/64", peers=(far,), routing={"enabled": True, "table": 7}),
        bridge("br0", mac="02:00:00:00:00:0A", hairpin=True),
    ]
    tunnel_spec, bridge_spec = (wanted.spec for wanted in check_request("mesh", asked))
    driver = tunnel_spec.wireguard
    assert driver is not None
    assert tunnel_spec.addresses == ("10.0.0.1/24", "fd00::1/64")
    assert (driver.mark, driver.table, driver.own_key) == (7, 7, True)
    assert (driver.peers[FAR.public].allowed, driver.peers[FAR.public].endpoint) == (("10.0.0.0/8",), "host.example:7")
    assert bridge_spec.hardware_address == "02:00:00:00:00:0a"
    assert getattr(bridge_spec.driver, "ports", None) == PortSettings(hairpin=True)
    with_key = replace(tunnel_spec, driver=replace(driver, public_key=OWN.public))  # as one is stored
    for spec in (with_key, bridge_spec):
        assert _stored(spec) == spec
        assert SECRET not in repr(spec)


def test_a_bridge_without_any_setting_of_ports_leaves_them_to_the_kernel() -> None:
    (wanted,) = check_request("mesh", [bridge("br0")])
    assert getattr(wanted.spec.driver, "ports", "") is None


def test_a_private_key_that_is_given_is_in_no_repr() -> None:
    (wanted,) = check_request("mesh", [wg(private_key=OWN.private)])
    assert OWN.private not in repr(wanted)
    assert wanted.spec.wireguard is not None
    assert wanted.spec.wireguard.public_key == public_key(OWN.private)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("192.0.2.1:51820", "192.0.2.1:51820"),
        ("[2001:DB8:0::1]:51820", "[2001:db8::1]:51820"),
        ("Gateway.example:1", "gateway.example:1"),
        ("gateway:0065", "gateway:65"),
    ],
)
def test_an_endpoint_is_an_address_or_a_name_with_a_port(written: str, normal: str) -> None:
    assert normal_endpoint(written) == normal


@pytest.mark.parametrize(
    "text",
    ["", ":1", "192.0.2.1", "192.0.2.1:65536", "192.0.2.256:1", "2001:db8::1:51820", "[192.0.2.1]:1", "[fe80::1%e]:1",
     "-a:1", "a..b:1", "a_b:1", "192.0.2.1:\u0663"],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        normal_endpoint(text)


def test_names_are_looked_up_and_those_without_an_address_are_none() -> None:
    resolver = Resolver(10.0)
    assert resolver.resolve("[2001:db8::1]:5") == "[2001:db8::1]:5"
    assert resolver.resolve("localhost:5") in ("127.0.0.1:5", "[::1]:5")
    assert resolver.known("localhost:6") in ("127.0.0.1:6", "[::1]:6")
    assert resolver.resolve("nowhere.invalid:5") == ""


def test_names_that_nobody_answers_for_hold_up_one_caller_and_are_known_as_soon_as_they_are_found() -> None:
    answers, asked = threading.Event(), []

    def look_up(host: str) -> str:
        asked.append(host)
        answers.wait(20)
        return "192.0.2.1"

    resolver = Resolver(0.01, look_up=look_up, clock=lambda: 7.0)
    assert [resolver.resolve(f"host{number}:5") for number in range(100)] == [""] * 100
    assert resolver.known("host0:5") == ""
    answers.set()
    deadline = time.monotonic() + 20
    while not resolver.known("host99:5"):
        assert time.monotonic() < deadline
    assert resolver.known("host0:6") == "192.0.2.1:6"
    assert asked == [f"host{number}" for number in range(100)]


def test_an_address_is_looked_up_anew_in_time_and_kept_while_there_is_no_other() -> None:
    now, found = [0.0], ["192.0.2.1"]
    resolver = Resolver(10.0, look_up=lambda _: found[0], clock=lambda: now[0])
    assert resolver.resolve("host:5") == "192.0.2.1:5"
    for address, expected in (("192.0.2.2", "192.0.2.2:5"), ("", "192.0.2.2:5")):
        found[0] = address
        now[0] += 60.0
        assert resolver.resolve("host:5") != ""
        deadline = time.monotonic() + 20
        while resolver.known("host:5") != expected:
            assert time.monotonic() < deadline


def test_more_interfaces_than_a_host_can_have_are_refused_at_once() -> None:
    with pytest.raises(InvalidMessage, match="the request lists 100000 interfaces: 1000 is the most"):
        check_request("p", [bridge(f"br{number}") for number in range(100_000)])


def _stored(spec: InterfaceSpec) -> InterfaceSpec:

    return decode(json.loads(encode(spec)))
