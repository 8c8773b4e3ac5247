"""A node that is cut off: restarts, reboots and credentials that have ended, while Vault and hub cannot be reached."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from edgefarm.nats import claims, nkeys
from edgefarm.nats.creds import format_creds
from tests.natskit import eventually, jti, sign
from tests.sidecar_leaf.conftest import MakePod
from tests.sidecar_leaf.world import LeafPod, World


async def reboot(pod: LeafPod) -> None:
    """Both processes are killed, and all that is not on the node's disk is gone."""
    pod.kill(pod.sidecar)
    pod.kill(pod.nats)
    shutil.rmtree(pod.folder / "config")
    (pod.folder / "config").mkdir()
    pod.start_sidecar()
    await pod.until_ready()
    pod.start_nats()


async def test_after_a_reboot_without_uplink_the_node_works_on_and_catches_up_later(
    world: World, make_pod: MakePod
) -> None:
    pod = await (await make_pod()).up(first=True)
    name, subject = f"S{pod.client_port}", f"live.{pod.client_port}"
    async with await pod.connect(world.user()) as application:
        await application.client.jetstream().add_stream(name=name, subjects=[subject])
        for number in range(50):
            await application.client.jetstream().publish(subject, str(number).encode())
    world.cut()
    await eventually(lambda: not pod.connected(), "cut")
    await reboot(pod)
    new = world.user()  # issued while the node is away, as a pod's own sidecar may have persisted it
    async with await pod.connect(new) as application:
        stream = application.client.jetstream()
        for number in range(50):
            await stream.publish(subject, str(number).encode())
        assert (await stream.stream_info(name)).state.messages == 100
        heard = await application.client.subscribe("live.local")
        await application.client.publish("live.local", b"here")
        assert (await heard.next_msg(timeout=5)).data == b"here"
    await world.mend()
    await pod.until_connected(30)


async def test_the_cached_account_is_used_however_old_it_is(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod()).up(first=True)
    world.cut()
    await eventually(lambda: not pod.connected(), "cut")
    long_ago = time.time() - 10 * 365 * 86400
    for path in (pod.data / "accounts").iterdir():
        os.utime(path, (long_ago, long_ago))
    for _ in range(2):
        await reboot(pod)
        async with await pod.connect(world.user()):
            pass
    assert (pod.data / "accounts" / f"{pod.account}.jwt").exists()


async def test_credentials_that_ended_while_offline_keep_nobody_on_the_node_from_working(
    world: World, make_pod: MakePod
) -> None:
    edge = await world.edge_network(lifetimeSeconds=3, renewEverySeconds=2)
    pod = await (await make_pod(edge)).up()
    world.cut()
    await eventually(lambda: not pod.connected(), "cut")
    await eventually(lambda: pod.claims()["exp"] < time.time(), "they have ended", 10)
    await reboot(pod)
    async with await pod.connect(world.user()) as application:
        heard = await application.client.subscribe("live.local")
        await application.client.publish("live.local", b"here")
        assert (await heard.next_msg(timeout=5)).data == b"here"
    await pod.until_says("cannot be reached")
    page = pod.get("/readyz")
    assert page.status == 200
    since = datetime.fromtimestamp(pod.claims()["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"the uplink's credentials ended on {since}, and the hub refuses this leaf" in page.body
    assert "clients on this node are accepted whatever happens" in page.body
    world.write_document(edge)
    await world.mend()
    await pod.until_connected(40)
    assert pod.claims()["exp"] > time.time()


async def test_an_overdue_renewal_is_said_and_counted(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod()).up()
    pod.kill(pod.sidecar)
    world.cut()
    age(pod.current, world, by=10_000)
    pod.start_sidecar()
    await pod.until_says("the renewal of the uplink's credentials is overdue")
    assert pod.get("/readyz").status == 200
    assert "clients on this node are accepted whatever happens" in pod.get("/readyz").body
    await pod.until_says("cannot be reached")
    assert 5_000 < pod.metric("renewal_overdue_seconds") < 20_000
    await world.mend()
    await eventually(lambda: pod.metric("renewal_overdue_seconds") == 0, "renewed", 40)
    assert "overdue" not in pod.get("/readyz").body


def age(folder: Path, world: World, by: int) -> None:
    """Replace both users by ones that were issued so many seconds earlier. (The hub would refuse them: it is away.)"""
    document = json.loads((folder / "access.json").read_text())
    for name, account in (("network", world.account.public), ("system", document["system"]["account"])):
        scope, key = world.account.keys["all"][0], nkeys.generate_user()
        issued_at = int(time.time()) - by
        body = claims.user_claims(
            name="old",
            subject=key.public,
            issuer=scope.public,
            account=account,
            jti=jti(),
            issued_at=issued_at,
            expires_at=issued_at + 86400,
        )
        (folder / f"{name}.creds").write_text(format_creds(sign(body, scope), key.seed))
