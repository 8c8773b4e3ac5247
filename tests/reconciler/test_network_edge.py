"""What the Network controller makes for EdgeNetworks: keys, grants, Service, certificate, and what pods are told."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from cryptography import x509

from edgefarm import names
from edgefarm.errors import VaultRefused
from reconciler.configuration import Configuration
from reconciler.ports import EDGE_NETWORK, NETWORK, SECRET, SERVICE, STREAM, Kind, Object
from tests.leafkit import Leaf
from tests.natskit import Connection, eventually
from tests.reconciler.conftest import Site
from tests.reconciler.leafs import leaf_document, leaf_login, make_leaf

LIMITS = {"filestorage": "10M", "inmemorystorage": "1M"}
NAMESPACE = names.CONTROLLER_NAMESPACE


@pytest.fixture
async def edge(site: Site) -> Site:
    """A network with an EdgeNetwork `plant<number>` and a Policy `sensor`."""
    await site.make_network(limits=LIMITS)
    await site.make_policy("sensor", allowpub=["sensor.>"], allowsub=["sensor.>"])
    await make_edge(site)
    await site.reconciler.converge()
    return site


def plant(site: Site) -> str:
    return f"plant-{site.network}"


async def make_edge(site: Site, name: str | None = None, **spec: Any) -> Object:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "EdgeNetwork",
        "metadata": {"name": name or plant(site), "namespace": NAMESPACE},
        "spec": {"network": site.network, "limits": {"filestorage": "20M"}, **spec},
    }
    return await site.reconciler.kube.create(EDGE_NETWORK, body)


async def existing(site: Site, kind: Kind, name: str) -> Object:
    obj = await site.get(kind, name, NAMESPACE)
    assert obj is not None
    return obj


def pod_document(site: Site, account: str = "sensor") -> dict[str, Any]:
    """What a pod in the factory is told."""
    path = names.access_document(site.network, site.factory, account)
    document = site.world.admin.read_document(path)
    assert document is not None
    return document


async def test_leafs_get_a_grant_that_tells_them_everything(edge: Site) -> None:
    document = leaf_document(edge, plant(edge))
    operator = edge.world.operator
    assert document["policy"] == plant(edge)
    assert document["hub"] == [edge.world.hub.leaf_url]
    assert (document["leaf"], "leafCa" in document) == ([], False)
    assert document["transitKey"] == names.leaf_key(edge.network, plant(edge))
    assert document["system"]["account"] == operator.system_account
    assert document["system"]["transitKey"] == names.SYSTEM_LEAF_KEY
    assert document["server"] == {
        "operatorJwt": operator.operator_jwt,
        "systemAccountJwt": operator.system_account_jwt,
        "fileStorage": 20_000_000,
        "memoryStorage": 1_000_000,
    }
    vault = leaf_login(edge, plant(edge))
    try:
        for key in (names.controller_key(edge.network), names.policy_key(edge.network, edge.factory, "sensor")):
            with pytest.raises(VaultRefused):
                vault.sign(key, 1, b"claims")
        with pytest.raises(VaultRefused):
            vault.read_document(names.access_document(edge.network, edge.factory, "sensor"))
    finally:
        vault.close()


async def test_a_leaf_connects_with_it_and_serves_the_clients_of_its_node(edge: Site, work: Path) -> None:
    leaf = make_leaf(edge, work / "leaf", plant(edge), "node-1").start()
    try:
        await leaf.until_connected()
        sensor = edge.world.credentials(edge.network, edge.factory, "sensor")
        async with await edge.world.connect(sensor) as hub, await at(leaf, edge) as local:
            heard = await hub.client.subscribe("sensor.>")
            assert await first(heard, lambda: local.client.publish("sensor.one", b"1")) == b"1"
        await edge.delete(EDGE_NETWORK, plant(edge), NAMESPACE)
        await edge.reconciler.converge()
        await eventually(lambda: leaf.server.uplink.account not in leaf.connected(), "the leaf was cut off")
    finally:
        leaf.stop()
    with pytest.raises(VaultRefused):
        leaf_login(edge, plant(edge))


async def at(leaf: Leaf, site: Site, account: str = "sensor") -> Connection:
    """A client of the leaf."""
    credentials = site.world.credentials(site.network, site.factory, account)
    return await Connection.open(leaf.url, site.world.authority, credentials)


async def first(subscription: Any, publish: Any) -> bytes:
    """The first message that comes, while `publish` is repeated until interest has travelled."""
    async with asyncio.timeout(30):
        while True:
            await publish()
            try:
                return bytes((await subscription.next_msg(timeout=0.2)).data)
            except nats.errors.TimeoutError:
                continue


async def test_pods_are_told_where_the_leaf_of_their_node_is(edge: Site) -> None:
    name = names.leaf_service(edge.network)
    service, secret = await existing(edge, SERVICE, name), await existing(edge, SECRET, name)
    owner = await existing(edge, NETWORK, edge.network)
    for obj in (service, secret):
        assert [ref["uid"] for ref in obj["metadata"]["ownerReferences"]] == [owner["metadata"]["uid"]]
    spec = service["spec"]
    assert spec["internalTrafficPolicy"] == "Local"
    assert spec["selector"] == {names.LABEL_OF_NETWORK: edge.network, names.LABEL_TYPE: names.TYPE_LEAF}
    assert [(port["name"], port["port"]) for port in spec["ports"]] == [("nats", 4222)]
    assert not spec.get("publishNotReadyAddresses")
    document = pod_document(edge)
    assert document["leaf"] == [f"tls://{spec['clusterIP']}:4222"]
    assert base64.b64decode(secret["data"]["ca.crt"]).decode() == document["leafCa"]
    (authority,) = x509.load_pem_x509_certificates(document["leafCa"].encode())
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    certificate.verify_directly_issued_by(authority)
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(each.value) for each in alternatives} == {
        *names.leaf_hosts(edge.network, NAMESPACE),
        spec["clusterIP"],
    }
    assert timedelta(days=364) < certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(days=366)


async def test_with_the_last_edge_network_everything_of_leafs_goes(edge: Site) -> None:
    await edge.delete(EDGE_NETWORK, plant(edge), NAMESPACE)
    await edge.reconciler.converge()
    name = names.leaf_service(edge.network)
    assert await edge.get(SERVICE, name, NAMESPACE) is None
    assert await edge.get(SECRET, name, NAMESPACE) is None
    assert (pod_document(edge)["leaf"], "leafCa" in pod_document(edge)) == ([], False)
    held = edge.world.held(edge.network)
    assert not [name for name in held["keys"] if name.startswith("leaf.")]
    assert list(held["roles"]) == [names.grant_role(edge.network, edge.factory, "sensor")]
    assert held["documents"] == [names.access_document(edge.network, edge.factory, "sensor")]


async def test_a_second_pass_writes_nothing(edge: Site) -> None:
    await make_edge(edge, f"yard-{edge.network}", nodeSelector={"yard": "true"})
    await edge.reconciler.converge()
    for again in ("later", "after a restart"):
        if again == "after a restart":
            edge.reconciler.restart()
        else:
            edge.reconciler.ahead += edge.world.configuration.resync
        edge.reconciler.gate.reset()
        await edge.reconciler.once("network", NAMESPACE, edge.network)
        assert edge.reconciler.gate.writes == []
    edge.reconciler.gate.reset()
    await edge.reconciler.once("network", NAMESPACE, edge.network)
    assert edge.reconciler.gate.calls.total() == 0, "nobody is asked between two resyncs"
    assert edge.reconciler.events.seen == []


@pytest.mark.parametrize("what", ["Service", "Secret", "service spec", "secret data", "labels", "role", "key"])
async def test_what_somebody_takes_away_or_changes_is_put_back(edge: Site, what: str) -> None:
    name, vault = names.leaf_service(edge.network), edge.world.admin
    before = leaf_document(edge, plant(edge))
    match what:
        case "Service":
            await edge.delete(SERVICE, name, NAMESPACE)
        case "Secret":
            await edge.delete(SECRET, name, NAMESPACE)
        case "service spec":
            changes: dict[str, Any] = {"internalTrafficPolicy": "Cluster", "selector": {"other": "pods"}}
            await edge.edit(SERVICE, name, NAMESPACE, spec=changes)
        case "secret data":
            await edge.edit(SECRET, name, NAMESPACE, data={"tls.crt": "bm90aGluZw==", "more": "bm90aGluZw=="})
        case "labels":
            await edge.edit(SERVICE, name, NAMESPACE, metadata={"labels": None})
        case "role":
            vault.delete_role(names.grant_role(edge.network, NAMESPACE, names.leaf_workload(plant(edge))))
        case "key":
            vault.delete_key(names.leaf_key(edge.network, plant(edge)))
    await settled(edge)
    service = await existing(edge, SERVICE, name)
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    assert set(service["spec"]["selector"]) == {names.LABEL_OF_NETWORK, names.LABEL_TYPE}
    secret = await existing(edge, SECRET, name)
    assert set(secret["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    assert pod_document(edge)["leaf"] == [f"tls://{service['spec']['clusterIP']}:4222"]
    after = leaf_document(edge, plant(edge))
    assert (after["signingKey"] == before["signingKey"]) == (what != "key")


async def settled(site: Site) -> None:
    """Pass until nothing is left to do, as at a resync."""
    site.reconciler.ahead += site.world.configuration.resync
    await site.reconciler.converge()
    await site.reconciler.once("network", NAMESPACE, site.network)
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"


@pytest.mark.parametrize("kind", [SERVICE, SECRET])
async def test_an_object_of_somebody_else_is_left_alone(site: Site, kind: Kind) -> None:
    name = names.leaf_service(site.network)
    spec: Object = {"spec": {"ports": [{"port": 80}]}} if kind is SERVICE else {"data": {}, "type": "Opaque"}
    foreign = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": name, "namespace": NAMESPACE}, **spec}
    made = await site.reconciler.kube.create(kind, foreign)
    await site.make_network(limits=LIMITS)
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await make_edge(site)
    await site.reconciler.converge()
    assert await existing(site, kind, name) == made
    status, reason, message = await site.condition(NETWORK, site.network, "LeafService")
    assert (status, reason) == ("False", "NameTaken")
    assert f"{kind.kind} {name!r}" in message
    assert (await site.condition(NETWORK, site.network, "Ready"))[:2] == ("False", "NameTaken")
    assert pod_document(site)["leaf"] == []
    await site.delete(kind, name, NAMESPACE)
    await settled(site)
    assert (await site.condition(NETWORK, site.network, "LeafService")) == ("", "", "")
    assert len(pod_document(site)["leaf"]) == 1


async def test_without_an_address_of_the_hub_for_leafs_there_are_none(edge: Site) -> None:
    key = leaf_document(edge, plant(edge))["signingKey"]
    edge.reconciler.configuration = without_leaf_urls(edge.world.configuration)
    await settled(edge)
    assert pod_document(edge)["leaf"] == []
    assert await edge.get(SERVICE, names.leaf_service(edge.network), NAMESPACE) is None
    with pytest.raises(VaultRefused):
        leaf_login(edge, plant(edge))
    assert key in await edge.signing_keys(edge.network), "leafs that are there go on"
    edge.reconciler.configuration = edge.world.configuration
    await settled(edge)
    assert leaf_document(edge, plant(edge))["signingKey"] == key


def without_leaf_urls(configuration: Configuration) -> Configuration:
    return replace(configuration, nats=replace(configuration.nats, leaf_urls=()))


@pytest.mark.parametrize("annotation", ["rotate-keys-at", "revoke-keys-before"])
async def test_the_key_of_leafs_rotates_and_is_revoked_by_annotation(edge: Site, annotation: str) -> None:
    before = leaf_document(edge, plant(edge))
    annotations = {f"{names.PREFIX}{annotation}": datetime.now(UTC).isoformat()}
    await edge.edit(EDGE_NETWORK, plant(edge), NAMESPACE, metadata={"annotations": annotations})
    await edge.reconciler.converge()
    after = leaf_document(edge, plant(edge))
    assert (before["keyVersion"], after["keyVersion"]) == (1, 2)
    keys = await edge.signing_keys(edge.network)
    assert after["signingKey"] in keys
    assert (before["signingKey"] in keys) == (annotation == "rotate-keys-at")
    nonsense = dict.fromkeys(annotations, "soon")
    await edge.edit(EDGE_NETWORK, plant(edge), NAMESPACE, metadata={"annotations": nonsense})
    await edge.reconciler.converge()
    assert leaf_document(edge, plant(edge)) == after


async def test_two_networks_share_one_authority(edge: Site) -> None:
    other = f"{edge.network}-b"
    await edge.make_network(other, [])
    await make_edge(edge, f"plant-{other}", network=other)
    await edge.reconciler.converge()
    bundles = [
        (await existing(edge, SECRET, names.leaf_service(network)))["data"]["ca.crt"]
        for network in (edge.network, other)
    ]
    assert bundles[0] == bundles[1]


async def test_a_lost_authority_is_made_anew_and_the_old_certificates_stay_trusted(edge: Site) -> None:
    before = pod_document(edge)["leafCa"]
    await edge.delete(SECRET, names.LEAF_CA_SECRET, NAMESPACE)
    await settled(edge)
    after = pod_document(edge)["leafCa"]
    assert len(x509.load_pem_x509_certificates(after.encode())) == 2
    assert after.endswith(before)


async def test_nodes_and_streams_are_counted(edge: Site) -> None:
    stream = {
        "apiVersion": names.API_VERSION,
        "kind": "Stream",
        "metadata": {"name": "readings", "namespace": edge.factory},
        "spec": {"name": "READINGS", "location": "edge", "subjects": ["sensor.>"]},
    }
    await edge.reconciler.kube.create(STREAM, stream)
    nodes = [{"name": f"node-{n}", "domain": f"d{n}", "connected": False} for n in range(3)]
    await edge.reconciler.kube.patch(
        EDGE_NETWORK, NAMESPACE, plant(edge), {"status": {"nodes": nodes}}, subresource="status"
    )
    await edge.reconciler.converge()
    status = (await existing(edge, NETWORK, edge.network))["status"]
    assert (status["edgeNodes"], status["streams"]) == (3, 1)
