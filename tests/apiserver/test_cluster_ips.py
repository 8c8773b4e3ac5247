"""Addresses of Services: given, kept, asked for and given back; the same on localcluster and Kubernetes."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from localcluster.kubernetes import LocalApiServer
from localcluster.network.ranges import ServiceRange
from tests.apiserver.rest import Json, Rest

LOOPBACK = IPv4Network("127.2.0.0/15")


@pytest.fixture
def path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def service(name: str, **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}, **spec}}


def test_a_service_gets_a_loopback_address_and_keeps_it(rest: Rest, path: str) -> None:
    made = rest.create(path, service("s"))
    address = made["spec"]["clusterIP"]
    assert IPv4Address(address) in LOOPBACK
    assert made["spec"]["clusterIPs"] == [address]
    assert made["spec"]["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 80}]
    with socket.create_server((address, 0)):
        pass
    changed = rest.put(f"{path}/s", service("s", ports=[{"port": 81}])).body
    assert changed["spec"]["clusterIP"] == address


def test_a_headless_service_has_no_address_and_an_external_name_gives_its_own_back(rest: Rest, path: str) -> None:
    headless = rest.create(path, service("h", clusterIP="None"))
    assert headless["spec"]["clusterIP"] == "None"
    assert rest.patch(f"{path}/h", {"spec": {"clusterIP": ""}}).body["spec"]["clusterIP"] == "None"
    address = rest.create(path, service("s"))["spec"]["clusterIP"]
    name = {"spec": {"type": "ExternalName", "externalName": "other.example"}}
    assert "clusterIP" not in rest.patch(f"{path}/s", name).body["spec"]
    rest.create(path, service("heir", clusterIP=address))
    back = rest.patch(f"{path}/s", {"spec": {"type": "ClusterIP", "externalName": None}}).body
    assert IPv4Address(back["spec"]["clusterIP"]) in LOOPBACK
    assert back["spec"]["clusterIP"] != address


def test_an_address_may_be_asked_for_when_it_is_free_and_is_free_after_a_deletion(rest: Rest, path: str) -> None:
    address = rest.create(path, service("first"))["spec"]["clusterIP"]
    taken = rest.post(path, service("second", clusterIP=address))
    assert taken.status == 422
    assert f"failed to allocate IP {address}: provided IP is already allocated" in taken.body["message"]
    rest.delete(f"{path}/first")
    assert rest.create(path, service("second", clusterIP=address))["spec"]["clusterIP"] == address


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "1.2.3.4"}, "failed to allocate IP 1.2.3.4: the provided network does not match the current"),
        ({"clusterIPs": ["127.2.0.9"]}, "must be empty when `clusterIP` is not specified"),
        ({"clusterIP": "127.2.0.8", "clusterIPs": ["127.2.0.9"]}, "first value must match `clusterIP`"),
        (
            {"type": "ExternalName", "externalName": "x.example", "clusterIP": "127.2.0.9"},
            "may not be set for ExternalName services",
        ),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(rest: Rest, path: str, spec: Json, why: str) -> None:
    answer = rest.post(path, service("s", **spec))
    assert answer.status == 422
    assert why in answer.body["message"]


def test_an_address_cannot_be_changed(rest: Rest, path: str) -> None:
    address = IPv4Address(rest.create(path, service("s"))["spec"]["clusterIP"])
    other = str(address + 1 if address.packed[3] < 254 else address - 1)
    answer = rest.patch(f"{path}/s", {"spec": {"clusterIP": other, "clusterIPs": [other]}})
    assert answer.status == 422
    assert "spec.clusterIPs[0]" in answer.body["message"]
    assert "may not change once set" in answer.body["message"]


def test_services_that_are_made_at_once_get_different_addresses_and_a_full_range_says_so(work: Path) -> None:
    server = LocalApiServer.start(work)
    try:
        rest = Rest(server.url, server.ca, server.admin_token)
        path = "/api/v1/namespaces/default/services"
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda number: rest.create(path, service(f"s-{number}")), range(254)))
        assert len({entry["spec"]["clusterIP"] for entry in made}) == 254
        full = rest.post(path, service("one-more"))
        assert full.status == 500
        assert "range is full" in full.body["message"]
    finally:
        server.stop()


def test_no_two_api_servers_have_the_same_range() -> None:
    first, second = ServiceRange.claim(), ServiceRange.claim()
    try:
        assert first.network != second.network
    finally:
        first.close()
        second.close()
