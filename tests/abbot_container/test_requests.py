"""What may be asked for, and what plugins are given: without any network."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from abbot.container import requests
from abbot.container.conflist import chain, cni_args
from abbot.container.requests import Arguments, Dns, NetworkConfig
from abbot.container.template import BUILT_IN, Conflist, render
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage, NetworkFailed
from tests.abbot_container.samples import SETTINGS

BOTH = NetworkConfig(ipv4="10.77.1.0/24", ipv6="fd00:77:1::/64")


def ensure(**fields: Any) -> pb.ContainerNetworkEnsureRequest:
    return json_format.ParseDict({"container_id": "one", "pid": 1, **fields}, pb.ContainerNetworkEnsureRequest())


def built_in(config: NetworkConfig = BOTH) -> Conflist:
    return render(BUILT_IN, config, SETTINGS)


@pytest.mark.parametrize("name", ["", "..", "../etc/passwd", "a/b", ".hidden", "-x", "a b", "a\x00", "a" * 201, "ä"])
def test_a_container_id_that_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="container_id"):
        requests.container_id(pb.ContainerNetworkDeleteRequest(container_id=name))


@given(st.text())
def test_a_container_id_that_is_accepted_is_a_file_name(name: str) -> None:
    try:
        accepted = requests.container_id(pb.ContainerNetworkDeleteRequest(container_id=name))
    except InvalidMessage:
        return
    assert accepted == name
    assert name not in ("", ".", "..")
    assert not set(name) & set("/\\\x00\n ")


def test_a_namespace_is_named_by_its_path_or_else_by_a_process() -> None:
    assert requests.namespace_path(ensure(pid=7)) == "/proc/7/ns/net"
    assert requests.namespace_path(ensure(pid=7, netns="/run/netns/x")) == "/run/netns/x"
    assert requests.namespace_path(ensure(pid=0)) == ""
    with pytest.raises(InvalidMessage, match=r"netns '\.\./x' must be an absolute path"):
        requests.namespace_path(ensure(netns="../x"))


def test_the_interface_is_eth0_unless_the_request_names_another() -> None:
    assert requests.interface_name(ensure()) == "eth0"
    assert requests.interface_name(ensure(interface_name="net1")) == "net1"
    for name in ("a/b", "sixteen-letters-", "a b", "-x"):
        with pytest.raises(InvalidMessage, match="interface_name"):
            requests.interface_name(ensure(interface_name=name))


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({}, "a capability argument is empty, or of a kind that this abbot does not know"),
        ({"port_map_arg": {"container_port": 80}}, "host_port 0 for container port 80/tcp must be 1 to 65535"),
        ({"port_map_arg": {"container_port": 80, "host_port": 70000}}, "host_port 70000"),
        ({"port_map_arg": {"host_port": 80}}, "container_port 0 must be 1 to 65535"),
        ({"port_map_arg": {"container_port": 1, "host_port": 1, "protocol": "icmp"}}, "must be tcp, udp or sctp"),
        ({"port_map_arg": {"container_port": 1, "host_port": 1, "host_ip": "x"}}, "host_ip 'x' is no IP address"),
        ({"bandwidth_arg": {"ingress_rate": -1}}, "must not be negative"),
        ({"bandwidth_arg": {"egress_rate": 1}}, "needs both egress_rate and egress_burst"),
        ({"ip_range_arg": {"subnet": "x"}}, "subnet 'x' of an ip range is no network"),
        ({"ip_range_arg": {"subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}}, "lies outside its subnet 10.0.0.0/24"),
        ({"dns_config_arg": {"servers": ["x"]}}, "dns server 'x' is no IP address"),
        ({"ip_addresses_arg": {"ips": ["10.0.0.1/99"]}}, "ips: '10.0.0.1/99' is no IP address"),
        ({"mac_address_arg": {"mac": "02:42"}}, "mac '02:42' must be six bytes in hex"),
        ({"infiniband_guid_arg": {"infiniband_guid": "x"}}, "infiniband_guid 'x' must be eight bytes"),
        ({"device_id_arg": {"device_id": "a b"}}, "device_id 'a b' must be up to 256 visible characters"),
    ],
)
def test_a_wrong_capability_is_refused_with_a_sentence(option: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        requests.arguments(ensure(cap_args=[option]))
    assert complaint in str(refused.value)


def test_a_port_or_a_single_capability_cannot_be_asked_for_twice() -> None:
    port = {"port_map_arg": {"container_port": 80, "host_port": 80}}
    there = {"port_map_arg": {"container_port": 81, "host_port": 80, "host_ip": "192.0.2.1"}}
    with pytest.raises(InvalidMessage, match="host port 80/tcp is asked for twice"):
        requests.arguments(ensure(cap_args=[port, there]))
    macs = [{"mac_address_arg": {"mac": f"02:42:ac:11:00:0{last}"}} for last in (1, 2)]
    with pytest.raises(InvalidMessage, match="the capability mac is asked for twice"):
        requests.arguments(ensure(cap_args=macs))
    elsewhere = {"port_map_arg": {"container_port": 81, "host_port": 80, "host_ip": "192.0.2.2"}}
    assert len(requests.arguments(ensure(cap_args=[there, elsewhere])).runtime["portMappings"]) == 2


@pytest.mark.parametrize("value", ["a;B=c", "a=b", "a\n", "\x00"])
def test_an_argument_cannot_smuggle_in_another_one(value: str) -> None:
    with pytest.raises(InvalidMessage, match="cni_args: the value of 'A' must not hold"):
        requests.arguments(ensure(cni_args={"A": value}))
    with pytest.raises(InvalidMessage, match="cni_args: the name"):
        requests.arguments(ensure(cni_args={value: "A"}))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"ipv4_subnet": "10.77.1.0"}, "ipv4_subnet '10.77.1.0' has no room for the gateway and a container"),
        ({"ipv4_subnet": "10.77.1.5/24"}, "has host bits set"),
        ({"ipv4_subnet": "fd00::/64"}, "ipv4_subnet 'fd00::/64' must be an IPv4 network"),
        ({"ipv6_subnet": "10.0.0.0/8"}, "ipv6_subnet '10.0.0.0/8' must be an IPv6 network"),
        ({"ipv4_subnet": "0.0.0.0/0; nft flush ruleset"}, "is no network"),
        ({"dns": {"servers": ["ns.example"]}}, "dns server 'ns.example' is no IP address"),
        ({"dns": {"searches": ["two words"]}}, "dns searches 'two words' must be visible characters"),
    ],
)
def test_a_wrong_subnet_or_dns_is_refused_with_a_sentence(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        requests.network_config(json_format.ParseDict(config, pb.ContainerNetworkConfigEnsureRequest()))
    assert complaint in str(refused.value)


def test_a_plugin_gets_only_the_capabilities_that_it_declares() -> None:
    asked = requests.arguments(
        ensure(
            cap_args=[
                {"port_map_arg": {"container_port": 80, "host_port": 8080, "protocol": "TCP"}},
                {"mac_address_arg": {"mac": "02:42:ac:11:00:02"}},
            ],
            cni_args={"ips": "10.77.1.5,fd00:77:1::5", "K8S_POD_NAME": "web"},
        )
    )
    bridge, portmap = chain(built_in(), asked, Dns())
    assert bridge["runtimeConfig"] == {"mac": "02:42:ac:11:00:02"}
    assert portmap["runtimeConfig"] == {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    assert portmap["args"] == {"cni": {"K8S_POD_NAME": "web", "ips": ["10.77.1.5", "fd00:77:1::5"]}}
    assert (portmap["name"], portmap["cniVersion"]) == ("edgefarm", "1.0.0")
    assert not {"capabilities", "onlyWith"} & portmap.keys()
    assert cni_args(asked) == "IgnoreUnknown=1;K8S_POD_NAME=web;ips=10.77.1.5,fd00:77:1::5"


def test_a_container_that_asks_for_nothing_has_the_bridge_only() -> None:
    (bridge,) = chain(built_in(), Arguments(), Dns())
    assert (bridge["type"], bridge["bridge"], bridge["mtu"]) == ("bridge", "abbot0", 1400)
    assert not {"runtimeConfig", "args", "dns"} & bridge.keys()
    assert cni_args(Arguments()) == ""


def test_ranges_replace_those_of_their_family_and_alternatives_share_a_set() -> None:
    ranges = [
        {"ip_range_arg": {"subnet": "10.77.1.0/24", "range_start": "10.77.1.9", "range_end": "10.77.1.9"}},
        {"ip_range_arg": {"subnet": "10.77.1.0/24", "range_start": "10.77.1.7", "range_end": "10.77.1.7"}},
    ]
    (bridge,) = chain(built_in(), requests.arguments(ensure(cap_args=ranges)), Dns())
    assert [len(alternatives) for alternatives in bridge["runtimeConfig"]["ipRanges"]] == [2]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "fd00:77:1::/64"}]]


def test_the_hosts_dns_is_for_containers_that_ask_for_none() -> None:
    hosts = Dns(servers=("10.96.0.10",), options=("ndots:5",))
    (bridge,) = chain(built_in(), Arguments(), hosts)
    assert bridge["dns"] == {"nameservers": ["10.96.0.10"], "search": [], "options": ["ndots:5"]}
    own = requests.arguments(ensure(cap_args=[{"dns_config_arg": {"servers": ["192.0.2.53"]}}]))
    (bridge,) = chain(built_in(), own, hosts)
    assert bridge["dns"] == {"nameservers": ["192.0.2.53"], "search": [], "options": []}


def test_addresses_from_before_are_wished_for_unless_the_container_names_some() -> None:
    (bridge,) = chain(built_in(), Arguments(), Dns(), ips=("10.77.1.9/24",))
    assert bridge["runtimeConfig"] == {"ips": ["10.77.1.9/24"]}
    own = requests.arguments(ensure(cap_args=[{"ip_addresses_arg": {"ips": ["10.77.1.5"]}}]))
    (bridge,) = chain(built_in(), own, Dns(), ips=("10.77.1.9/24",))
    assert bridge["runtimeConfig"] == {"ips": ["10.77.1.5"]}


def test_a_capability_that_no_plugin_has_is_refused() -> None:
    asked = requests.arguments(ensure(cap_args=[{"device_id_arg": {"device_id": "0000:03:00.0"}}]))
    with pytest.raises(NetworkFailed, match="no plugin of the conflist 'edgefarm' has the capability deviceID"):
        chain(built_in(), asked, Dns())
