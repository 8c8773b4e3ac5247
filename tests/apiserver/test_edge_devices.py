"""What an API server itself fills into EdgeDevices, and what it refuses with a sentence that says what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.crd import definitions
from tests.apiserver.rest import Json, Rest
from tests.apiserver.waiting import eventually

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
#: A group of its own: other tests install the real definitions.
GROUP = "devices.example.org"


@pytest.fixture(scope="module")
def served(rest: Rest) -> str:
    """The definition under a group of this module."""
    made = definitions()[f"{names.GROUP}_edgedevices.yaml"]
    rest.create(CRDS, json.loads(json.dumps(made).replace(names.GROUP, GROUP)))
    eventually(lambda: rest.get(f"/apis/{GROUP}/{names.VERSION}/edgedevices").status == 200)
    return f"/apis/{GROUP}/{names.VERSION}"


@pytest.fixture
def devices(served: str, namespace: str) -> str:
    return f"{served}/namespaces/{namespace}/edgedevices"


def device(spec: Any, name: str = "edge-1.example") -> Json:
    return {
        "apiVersion": f"{GROUP}/{names.VERSION}",
        "kind": "EdgeDevice",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_an_empty_spec_gets_its_defaults(rest: Rest, devices: str) -> None:
    made = rest.create(devices, device({}))
    assert made["spec"] == {"network": {"enabled": True, "mesh": {"routingTable": 0, "firewallMark": 0}}}


def test_a_full_spec_is_taken_as_it_is(rest: Rest, devices: str) -> None:
    mesh = {
        "interfaceName": "wg-edge.0_1",
        "mtu": 1280,
        "port": 65535,
        "routingTable": 2**31 - 1,
        "firewallMark": 7,
        "ipv4Addr": "10.201.255.1",
        "ipv6Addr": "fd00:201::17",
        "extraAllowedCIDRs": ["192.168.7.0/24", "fd00:7::/64"],
        "endpoint": "gateway.example:51820",
    }
    pod = {
        "ipv4CIDR": "10.42.7.0/24",
        "ipv6CIDR": "fd00:42:7::/64",
        "dns": {"servers": ["10.96.0.10", "fd00::10"], "searches": ["cluster.local"], "options": ["ndots:5"]},
    }
    spec = {"network": {"enabled": False, "mesh": mesh}, "pod": pod}
    assert rest.create(devices, device(spec, name="gateway.cloud-1"))["spec"] == spec


@pytest.mark.parametrize("endpoint", ["203.0.113.7:1", "[2001:db8::7]:51820", "gateway.example:51820", ""])
def test_every_form_of_an_endpoint_is_taken(rest: Rest, devices: str, endpoint: str) -> None:
    made = rest.create(devices, device({"network": {"mesh": {"endpoint": endpoint}}}))
    assert made["spec"]["network"]["mesh"]["endpoint"] == endpoint


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        ({"interfaceName": "a/b"}, "write for example edgefarm0"),
        ({"interfaceName": "-wg"}, "write for example edgefarm0"),
        ({"interfaceName": "sixteen-letters-"}, "may not be more than 15"),
        ({"mtu": 1279}, "greater than or equal to 1280"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"port": 65536}, "less than or equal to 65535"),
        ({"routingTable": 2**31}, "less than or equal to 2147483647"),
        ({"ipv4Addr": "10.201.0.256"}, "write for example 10.201.0.17"),
        ({"ipv4Addr": "10.201.0.0/16"}, "write for example 10.201.0.17"),
        ({"ipv6Addr": "fd00:g::1"}, "write for example fd00:201::17"),
        ({"extraAllowedCIDRs": ["192.168.7.0"]}, "write for example 192.168.7.0/24"),
        ({"extraAllowedCIDRs": ["0.0.0.0/0"]}, "write for example 192.168.7.0/24"),
        ({"extraAllowedCIDRs": ["fd00:7::/129"]}, "write for example 192.168.7.0/24"),
        ({"endpoint": "gateway.example"}, "write for example 203.0.113.7:51820"),
        ({"endpoint": "2001:db8::7:51820"}, "write for example 203.0.113.7:51820"),
        ({"endpoint": "10.0.0.1:0"}, "write for example 203.0.113.7:51820"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_write(rest: Rest, devices: str, mesh: Json, sentence: str) -> None:
    answer = rest.post(devices, device({"network": {"mesh": mesh}}))
    assert answer.status == 422
    assert sentence in answer.body["message"]


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        ({"ipv4CIDR": "fd00:42:7::/64"}, "write for example 10.42.7.0/24"),
        ({"ipv6CIDR": "10.42.7.0/24"}, "write for example fd00:42:7::/64"),
        ({"dns": {"servers": ["dns.example"]}}, "write for example 10.96.0.10"),
    ],
)
def test_pod_networks_and_resolvers_are_checked_too(rest: Rest, devices: str, pod: Json, sentence: str) -> None:
    answer = rest.post(devices, device({"pod": pod}))
    assert answer.status == 422
    assert sentence in answer.body["message"]
