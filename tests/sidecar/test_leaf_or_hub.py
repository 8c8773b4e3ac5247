"""Leaf or hub at run time, with two real nats-servers: one stands for the hub, one for the leaf of the pod's node."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from edgefarm.nats import jwt
from localcluster.process import free_port
from localcluster.stack import Authority
from tests.natskit import eventually
from tests.sidecar.leaf import QUICK, SUBJECT, Leaf, changes, route
from tests.sidecar.world import SidecarPod, World

MakePod = Callable[..., SidecarPod]


async def relayed(world: World, make_pod: MakePod, leaf: Leaf, **environment: str) -> tuple[SidecarPod, str]:
    """A pod in mode nats with a relay, and the relay's URL."""
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",), (f"{SUBJECT}.>",), **leaf.document)
    port = str(free_port())
    pod = make_pod(account, EDGEFARM_NATS_PORT=port, **{**QUICK, **environment})
    await pod.until_ready()
    return pod, f"nats://127.0.0.1:{port}"


async def application(pod: SidecarPod, url: str) -> Client:
    """An ordinary client with ordinary options, as an application has it."""

    async def report(_error: Exception) -> None:
        """Reconnecting is the client's business."""

    return await nats.connect(
        url, user_credentials=str(pod.creds), reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=report
    )


async def test_a_pod_with_a_leaf_on_its_node_uses_it_and_says_so(world: World, make_pod: MakePod, leaf: Leaf) -> None:
    pod, url = await relayed(world, make_pod, leaf)
    async with await leaf.listen(world, "leaf"):
        client = await application(pod, url)
        await client.publish(f"{SUBJECT}.a", b"1")
        await eventually(lambda: leaf.received["leaf"] == [1], "arrived at the leaf")
        await client.close()
    assert (route(pod), changes(pod)) == ("leaf", 0)
    assert pod.get("/readyz").body == "credentials are in place; the route is the leaf of this node\n"


async def test_a_leaf_that_dies_is_left_for_the_hub_and_taken_again_and_nothing_published_after_reconnecting_is_lost(
    world: World, make_pod: MakePod, leaf: Leaf
) -> None:
    pod, url = await relayed(world, make_pod, leaf)
    acknowledged: list[int] = []
    async with await leaf.listen(world, "hub"):
        at_leaf = await leaf.listen(world, "leaf")
        client = await application(pod, url)
        enough = asyncio.Event()
        publisher = asyncio.create_task(_publish(client, acknowledged, enough))
        await eventually(lambda: len(leaf.received["leaf"]) > 20, "at the leaf")
        await leaf.kill()
        await at_leaf.client.close()
        await eventually(lambda: len(leaf.received["hub"]) > 20, "at the hub", 5)
        assert (route(pod), changes(pod)) == ("hub", 1)
        await leaf.start()
        async with await leaf.listen(world, "leaf"):
            before = len(leaf.received["leaf"])
            await eventually(lambda: len(leaf.received["leaf"]) > before + 20, "at the leaf again", 15)
            assert (route(pod), changes(pod)) == ("leaf", 2)
            enough.set()
            await publisher
            await client.close()
    assert set(acknowledged) <= {*leaf.received["leaf"], *leaf.received["hub"]}
    taken = [line for line in pod.lines() if line["event"] == "route taken"]
    assert [line["route"] for line in taken] == ["leaf", "hub", "leaf"], "one line per change"
    assert taken[0]["reason"] == "this node has a leaf"
    assert "refuses the connection" in str(taken[1]["reason"])
    assert taken[2]["reason"] == "the leaf has been reachable for 2 s"


async def _publish(client: Client, acknowledged: list[int], enough: asyncio.Event) -> None:
    """Publish rising numbers; one counts when the server has answered after it, else it is sent again.

    Until `enough` is set, and not until it is cancelled: nats-py can lose a cancellation in Python 3.11.
    """
    number = 0
    while not enough.is_set():
        try:
            await client.publish(f"{SUBJECT}.a", str(number).encode())
            await client.flush(timeout=1)
            await client.flush(timeout=1)
        except (NatsError, OSError, TimeoutError):
            await asyncio.sleep(0.05)
            continue
        acknowledged.append(number)
        number += 1
        await asyncio.sleep(0.005)


async def test_a_leaf_that_freezes_is_left_when_patience_is_over(world: World, make_pod: MakePod, leaf: Leaf) -> None:
    pod, _ = await relayed(world, make_pod, leaf, EDGEFARM_ROUTE_PATIENCE_SECONDS="1")
    process = leaf.server.servers["hub-0"].process
    process.suspend()
    await eventually(lambda: route(pod) == "hub", "left", 15)
    process.resume()
    await eventually(lambda: route(pod) == "leaf", "taken again", 15)


async def test_while_the_hub_is_away_the_leaf_is_kept_and_taken_at_once(
    world: World, make_pod: MakePod, leaf: Leaf
) -> None:
    hub = f"tls://127.0.0.1:{free_port()}"
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",), **leaf.document, hub=[hub])
    await leaf.kill()
    port = str(free_port())
    pod = make_pod(account, EDGEFARM_NATS_PORT=port, EDGEFARM_ROUTE_STEADY_SECONDS="300")
    await pod.until_ready()
    await eventually(lambda: route(pod) == "hub", "decided", 20)
    connecting = asyncio.create_task(_connect(pod, f"nats://127.0.0.1:{port}"))
    await eventually(lambda: "which cannot be used" in pod.get("/readyz").body, "said", 10)
    await leaf.start()
    client = await asyncio.wait_for(connecting, 30)
    assert route(pod) == "leaf"
    await client.close()


async def _connect(pod: SidecarPod, url: str) -> Client:
    while True:
        try:
            return await application(pod, url)
        except (NatsError, OSError, TimeoutError):
            await asyncio.sleep(0.2)


async def test_after_a_reboot_without_uplink_a_pod_gets_going_at_the_leaf_with_what_it_kept(
    world: World, make_pod: MakePod, leaf: Leaf
) -> None:
    pod, url = await relayed(world, make_pod, leaf)
    pod.running.signal(signal.SIGKILL)
    pod.running.wait(5)
    document = json.loads((pod.creds.parent / "access.json").read_text())
    document["hub"] = [f"tls://127.0.0.1:{free_port()}"]
    (pod.creds.parent / "access.json").chmod(0o600)
    (pod.creds.parent / "access.json").write_text(json.dumps(document))
    pod.environment["EDGEFARM_VAULT_ADDR"] = f"https://127.0.0.1:{free_port()}"
    pod.start()
    await pod.until_ready(5)
    async with await leaf.listen(world, "leaf"):
        client = await application(pod, url)
        await client.publish(f"{SUBJECT}.a", b"7")
        await eventually(lambda: leaf.received["leaf"] == [7], "arrived")
        await client.close()
    assert route(pod) == "leaf"


async def test_a_new_pod_without_uplink_says_what_it_needs(world: World, make_pod: MakePod) -> None:
    pod = make_pod(world.service_account(), EDGEFARM_VAULT_ADDR=f"https://127.0.0.1:{free_port()}")
    sentence = "this pod has no credentials of an earlier run and needs the uplink once, also where its node has a leaf"
    await pod.until_not_ready(sentence)
    [line] = [str(line["event"]) for line in pod.lines() if sentence in str(line["event"])]
    assert line.startswith("Vault at")
    assert 'with the annotation network.edgefarm.io/persist-credentials: "disk" its node may reboot, too' in line


async def test_a_pod_whose_credentials_ended_while_it_was_cut_off_says_so_and_since_when(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",), lifetimeSeconds=4, renewEverySeconds=60)
    pod = make_pod(account)
    await pod.until_ready()
    pod.running.signal(signal.SIGKILL)
    pod.running.wait(5)
    pod.environment["EDGEFARM_VAULT_ADDR"] = f"https://127.0.0.1:{free_port()}"
    since = datetime.fromtimestamp(jwt.decode(pod.credentials()[0], verify=False)["exp"], UTC)
    ended = f"the credentials of this pod ended on {since:%Y-%m-%dT%H:%M:%SZ}, and no server accepts it"
    for _ in ("they end while it runs", "they have ended when it starts"):
        pod.start()
        await pod.until_not_ready(f"{ended} until they are renewed, which fails: Vault at")
        pod.running.signal(signal.SIGKILL)
        pod.running.wait(5)


async def test_a_leaf_of_another_authority_is_not_used_and_the_log_says_why(
    world: World, make_pod: MakePod, leaf: Leaf, work: Path
) -> None:
    account = world.service_account()
    other = Authority.create(work / "other-pki").pem
    await world.grant(account, (f"{SUBJECT}.>",), leaf=[leaf.server.url], leafCa=other)
    pod = make_pod(account, EDGEFARM_NATS_PORT=str(free_port()))
    await pod.until_ready()
    await eventually(lambda: route(pod) == "hub", "decided")
    [taken] = [line for line in pod.lines() if line["event"] == "route taken"]
    assert f"the certificate of {leaf.server.url} is not trusted" in str(taken["reason"])


async def test_a_leaf_that_does_not_know_the_account_is_not_used(world: World, make_pod: MakePod, leaf: Leaf) -> None:
    world.also.clear()
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",), **leaf.document)
    pod = make_pod(account, EDGEFARM_NATS_PORT=str(free_port()))
    await pod.until_ready()
    await eventually(lambda: route(pod) == "hub", "decided")
    [taken] = [line for line in pod.lines() if line["event"] == "route taken"]
    assert "does not accept the credentials: -ERR 'Authorization Violation'" in str(taken["reason"])


async def test_a_network_without_leafs_is_never_looked_for_one(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",))
    pod = make_pod(account, EDGEFARM_NATS_PORT=str(free_port()))
    await pod.until_ready()
    settled = "credentials are in place; the route is the hub\n"
    await eventually(lambda: pod.get("/readyz").body == settled, "the route is decided", 10)
    assert (route(pod), changes(pod)) == ("hub", 0)


async def test_a_network_that_gets_leafs_later_moves_its_pods_and_back(
    world: World, make_pod: MakePod, leaf: Leaf
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{SUBJECT}.>",))
    pod = make_pod(account, EDGEFARM_NATS_PORT=str(free_port()), **QUICK)
    await pod.until_ready()
    await eventually(lambda: route(pod) == "hub", "decided", 20)
    world.write_document(account, **leaf.document)
    await eventually(lambda: route(pod) == "leaf", "taken", 15)
    authorities = (pod.creds.parent / "ca.crt").read_text()
    assert leaf.server.authority.pem.strip() in authorities
    assert world.authority.pem.strip() in authorities
    world.write_document(account)
    await eventually(lambda: route(pod) == "hub", "left", 15)


async def test_an_application_that_has_a_connection_left_is_waited_for_at_the_end(
    world: World, make_pod: MakePod, leaf: Leaf
) -> None:
    pod, url = await relayed(world, make_pod, leaf)
    async with await leaf.listen(world, "leaf"):
        client = await application(pod, url)
        pod.running.signal(signal.SIGTERM)
        for number in range(5):
            await client.publish(f"{SUBJECT}.a", str(number).encode())
            await client.flush(timeout=1)
            await asyncio.sleep(0.1)
        await client.close()
        assert await asyncio.to_thread(pod.running.wait, 2) == 0
        await eventually(lambda: leaf.received["leaf"] == list(range(5)), "all arrived")
