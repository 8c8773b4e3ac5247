"""The section `mesh` of the configuration: its defaults, and what is refused with the member's name."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
import yaml

from edgefarm.errors import InvalidResource
from reconciler.configuration import DATA_KEY, Configuration, parse_configuration
from reconciler.mesh_configuration import DirectConfiguration, MeshConfiguration


def configuration(mesh: Any, **nats: Any) -> Configuration:
    text = yaml.safe_dump(
        {"vault": {"address": "https://vault.example"}, "nats": {"urls": ["tls://hub.example"], **nats}, "mesh": mesh}
    )
    return parse_configuration({DATA_KEY: text})


def test_without_the_section_there_is_no_mesh() -> None:
    mesh = configuration({}).mesh
    assert mesh == MeshConfiguration(agent_urls=("tls://hub.example",))
    assert not mesh.enabled
    assert mesh.blocks == (IPv4Network("10.201.0.0/16"),)
    assert mesh.direct.most == 16


def test_a_full_section_is_read() -> None:
    mesh = configuration(
        {
            "enabled": True,
            "ipv4Block": "10.99.0.0/20",
            "ipv6Block": "fd00:201::/64",
            "podCIDRs": ["10.42.0.0/16", "fd00:42::/48"],
            "serviceCIDRs": ["10.43.0.0/16"],
            "keys": "controller",
            "interfaceName": "wg-mesh",
            "mtu": 1380,
            "port": 51900,
            "direct": {"enabled": False, "maxPeers": 8},
            "observeEvery": "5s",
            "agentUrls": ["tls://agents.example:4222"],
        }
    ).mesh
    assert mesh == MeshConfiguration(
        enabled=True,
        ipv4_block=IPv4Network("10.99.0.0/20"),
        ipv6_block=IPv6Network("fd00:201::/64"),
        pod_cidrs=(IPv4Network("10.42.0.0/16"), IPv6Network("fd00:42::/48")),
        service_cidrs=(IPv4Network("10.43.0.0/16"),),
        keys="controller",
        interface_name="wg-mesh",
        mtu=1380,
        port=51900,
        direct=DirectConfiguration(enabled=False, max_peers=8),
        observe_every=timedelta(seconds=5),
        agent_urls=("tls://agents.example:4222",),
    )
    assert mesh.direct.most == 0


def test_agents_use_the_urls_of_clients_unless_they_have_their_own() -> None:
    assert configuration({}, clientUrls=["tls://pods.example"]).mesh.agent_urls == ("tls://pods.example",)


@pytest.mark.parametrize(
    ("mesh", "field", "sentence"),
    [
        ({"enabled": "yes"}, "enabled", "true or false"),
        ({"ipv4Block": "10.201.0.0"}, "ipv4Block", "is not a network"),
        ({"ipv4Block": "fd00::/64"}, "ipv4Block", "is not an IPv4 network"),
        ({"ipv4Block": "10.0.0.0/7"}, "ipv4Block", "from /8 to /30"),
        ({"ipv4Block": "10.201.0.0/31"}, "ipv4Block", "from /8 to /30"),
        ({"ipv6Block": "fd00::/31"}, "ipv6Block", "from /32 to /120"),
        ({"ipv6Block": "fd00::/121"}, "ipv6Block", "from /32 to /120"),
        ({"ipv6Block": "10.0.0.0/8"}, "ipv6Block", "is not an IPv6 network"),
        ({"podCIDRs": ["10.201.7.0/24"]}, "podCIDRs[0]", "overlaps mesh.ipv4Block (10.201.0.0/16)"),
        ({"podCIDRs": ["10.1.0.0/16", "10.0.0.0/8"]}, "podCIDRs[1]", "overlaps 10.1.0.0/16"),
        ({"ipv6Block": "fd00::/32", "podCIDRs": ["fd00:0:1::/48"]}, "podCIDRs[0]", "overlaps mesh.ipv6Block"),
        ({"serviceCIDRs": ["10.0.0.0/8"]}, "serviceCIDRs[0]", "overlaps mesh.ipv4Block"),
        (
            {"podCIDRs": ["10.42.0.0/16"], "serviceCIDRs": ["10.43.0.0/16", "10.42.7.0/24"]},
            "serviceCIDRs[1]",
            "overlaps mesh.podCIDRs[0]",
        ),
        ({"keys": "vault"}, "keys", "write device or controller"),
        ({"interfaceName": "sixteen-letters-"}, "interfaceName", "1 to 15 letters"),
        ({"mtu": 1279}, "mtu", "from 1280 to 65535"),
        ({"port": 0}, "port", "from 1 to 65535"),
        ({"direct": {"maxPeers": 65}}, "direct.maxPeers", "from 0 to 64"),
        ({"direct": {"max": 1}}, "direct.max", "not known"),
        ({"observeEvery": "0s"}, "observeEvery", "longer than zero"),
        ({"observeEvery": "2h"}, "observeEvery", "at most 1h"),
        ({"agentUrls": ["https://hub.example"]}, "agentUrls[0]", "nats:// or tls://"),
        ({"block": "10.0.0.0/8"}, "block", "not known"),
    ],
)
def test_what_is_wrong_is_named(mesh: Any, field: str, sentence: str) -> None:
    with pytest.raises(InvalidResource) as error:
        configuration(mesh)
    assert error.value.field == f"mesh.{field}"
    assert sentence in error.value.message
