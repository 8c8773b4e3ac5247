"""EdgeDevice objects: parsed to a frozen type, or refused with the field and what to write instead."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
import yaml

from edgefarm.api.edge_device import Dns, EdgeDevice, MeshSettings, PodSettings
from edgefarm.errors import InvalidResource
from tests.api.test_crds import ROOT


def device(spec: Any, name: str = "edge-1.example") -> EdgeDevice:
    meta = {"name": name, "namespace": "network", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return EdgeDevice.parse({"kind": "EdgeDevice", "metadata": meta, "spec": spec})


@pytest.mark.parametrize("spec", [{}, {"network": {}}, {"network": {"mesh": {}}, "pod": {}}])
def test_an_empty_spec_means_the_defaults(spec: Any) -> None:
    parsed = device(spec)
    assert parsed.enabled
    assert (parsed.mesh, parsed.pod) == (MeshSettings(), PodSettings())


def test_a_full_device_is_read() -> None:
    parsed = device(
        {
            "network": {
                "enabled": False,
                "mesh": {
                    "interfaceName": "wg0",
                    "mtu": 1400,
                    "port": 51821,
                    "routingTable": 100,
                    "firewallMark": 7,
                    "ipv4Addr": "10.201.0.17",
                    "ipv6Addr": "fd00:201::17",
                    "extraAllowedCIDRs": ["192.168.7.0/24", "fd00:7::/64"],
                    "endpoint": "[2001:db8::7]:51820",
                },
            },
            "pod": {
                "ipv4CIDR": "10.42.7.0/24",
                "ipv6CIDR": "fd00:42:7::/64",
                "dns": {"servers": ["10.96.0.10"], "searches": ["cluster.local"], "options": ["ndots:5"]},
            },
        }
    )
    assert not parsed.enabled
    assert parsed.mesh == MeshSettings(
        interface_name="wg0",
        mtu=1400,
        port=51821,
        routing_table=100,
        firewall_mark=7,
        ipv4=IPv4Address("10.201.0.17"),
        ipv6=IPv6Address("fd00:201::17"),
        extra_cidrs=(IPv4Network("192.168.7.0/24"), IPv6Network("fd00:7::/64")),
        endpoint="[2001:db8::7]:51820",
    )
    dns = Dns(("10.96.0.10",), ("cluster.local",), ("ndots:5",))
    assert parsed.pod == PodSettings(IPv4Network("10.42.7.0/24"), IPv6Network("fd00:42:7::/64"), dns)


def test_empty_texts_count_as_not_given() -> None:
    mesh = {"interfaceName": "", "ipv4Addr": "", "ipv6Addr": "", "endpoint": ""}
    parsed = device({"network": {"mesh": mesh}, "pod": {"ipv4CIDR": ""}})
    assert (parsed.mesh, parsed.pod) == (MeshSettings(), PodSettings())


@pytest.mark.parametrize(
    ("mesh", "field", "sentence"),
    [
        ({"interfaceName": "sixteen-letters-"}, "interfaceName", "1 to 15 letters"),
        ({"interfaceName": "a b"}, "interfaceName", "1 to 15 letters"),
        ({"interfaceName": 5}, "interfaceName", "must be a string"),
        ({"mtu": 1279}, "mtu", "from 1280 to 65535"),
        ({"mtu": True}, "mtu", "from 1280 to 65535"),
        ({"port": 65536}, "port", "from 1 to 65535"),
        ({"routingTable": -1}, "routingTable", "from 0 to 2147483647"),
        ({"firewallMark": 2**31}, "firewallMark", "from 0 to 2147483647"),
        ({"ipv4Addr": "10.201.0.017"}, "ipv4Addr", "write for example 10.201.0.17"),
        ({"ipv4Addr": "fd00::1"}, "ipv4Addr", "not an IPv4 address"),
        ({"ipv6Addr": "fe80::1%eth0"}, "ipv6Addr", "not an IPv6 address"),
        ({"ipv6Addr": "1::2::3"}, "ipv6Addr", "not an IPv6 address"),
        ({"extraAllowedCIDRs": "10.0.0.0/8"}, "extraAllowedCIDRs", "list of strings"),
        ({"extraAllowedCIDRs": ["10.7.0.1/16"]}, "extraAllowedCIDRs[0]", "write 10.7.0.0/16"),
        ({"extraAllowedCIDRs": ["10.7.0.0/255.255.0.0"]}, "extraAllowedCIDRs[0]", "not a network"),
        ({"extraAllowedCIDRs": ["10.7.0.0/33"]}, "extraAllowedCIDRs[0]", "not a network"),
        ({"extraAllowedCIDRs": ["0.0.0.0/0"]}, "extraAllowedCIDRs[0]", "all addresses"),
        ({"extraAllowedCIDRs": ["127.0.0.0/8"]}, "extraAllowedCIDRs[0]", "cannot be routed"),
        ({"extraAllowedCIDRs": ["fe80::/64"]}, "extraAllowedCIDRs[0]", "cannot be routed"),
        ({"extraAllowedCIDRs": ["224.0.0.0/4"]}, "extraAllowedCIDRs[0]", "cannot be routed"),
        ({"extraAllowedCIDRs": ["10.0.0.0/8", "10.7.0.0/16"]}, "extraAllowedCIDRs[1]", "overlaps 10.0.0.0/8"),
        ({"endpoint": "gateway.example"}, "endpoint", "address:port"),
        ({"endpoint": "gateway.example:"}, "endpoint", "address:port"),
        ({"endpoint": "gateway.example:65536"}, "endpoint", "address:port"),
        ({"endpoint": "2001:db8::7:51820"}, "endpoint", "address:port"),
        ({"endpoint": "[10.0.0.1]:51820"}, "endpoint", "address:port"),
        ({"endpoint": "10.0.0.256:51820"}, "endpoint", "address:port"),
        ({"endpoint": "[fe80::1%eth0]:51820"}, "endpoint", "address:port"),
        ({"interface": "wg0"}, "interface", "not known"),
    ],
)
def test_what_is_wrong_in_the_mesh_is_named(mesh: Any, field: str, sentence: str) -> None:
    with pytest.raises(InvalidResource) as error:
        device({"network": {"mesh": mesh}})
    assert error.value.field == f"spec.network.mesh.{field}"
    assert sentence in error.value.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"network": {"enabled": "no"}}, "spec.network.enabled"),
        ({"network": {"ports": 1}}, "spec.network.ports"),
        ({"pod": {"ipv4CIDR": "fd00::/64"}}, "spec.pod.ipv4CIDR"),
        ({"pod": {"ipv6CIDR": "10.42.7.0/24"}}, "spec.pod.ipv6CIDR"),
        ({"pod": {"dns": {"servers": ["dns.example"]}}}, "spec.pod.dns.servers[0]"),
        ({"pod": {"dns": {"server": []}}}, "spec.pod.dns.server"),
        ({"role": "gateway"}, "spec.role"),
    ],
)
def test_what_is_wrong_elsewhere_is_named(spec: Any, field: str) -> None:
    with pytest.raises(InvalidResource) as error:
        device(spec)
    assert error.value.field == field


def test_the_example_is_valid() -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples/mesh/edgedevice.yaml").read_text()))
    parsed = [device(document["spec"], document["metadata"]["name"]) for document in documents]
    assert [each.name for each in parsed] == ["edge-1", "gateway.cloud-1"]
