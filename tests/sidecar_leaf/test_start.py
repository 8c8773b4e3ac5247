"""How a leaf comes up, and what stands in its way, with a real OpenBao, hub and leaf."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.process import free_port
from tests.natskit import eventually
from tests.sidecar_leaf.conftest import MakePod
from tests.sidecar_leaf.world import World

ROOT = Path(__file__).parents[2]


async def test_a_leaf_gets_two_users_and_connects_in_both_accounts(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod()).up(first=True)
    assert pod.claims("network")["name"] == "node_one"
    assert pod.claims("system")["name"] == "foo-node_one"
    assert pod.claims("network")["nats"]["issuer_account"] == world.account.public
    assert pod.claims("system")["nats"]["issuer_account"] == world.hub.operator.system.public
    async with await pod.connect(world.user()) as here, await world.at_hub() as there:
        assert (await here.client.jetstream().account_info()).domain == "foo-node_one"
        received = await there.client.subscribe("live.x")
        await there.settle()

        async def arrives() -> bool:
            await here.client.publish("live.x", b"1")
            await here.settle()
            await there.settle()
            return bool(received.pending_msgs)

        assert any([await arrives() for _ in range(20)])
    for account in ("network", "system"):
        line = f'edgefarm_sidecar_leaf_uplink{{account="{account}"}} 1'
        await eventually(lambda line=line: line in pod.get("/metrics").body, line)  # type: ignore[misc]
    assert pod.metric("leaf_configuration_current") == 1


async def test_the_folder_of_the_credentials_is_private_and_holds_one_set(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network(renewEverySeconds=1)
    pod = (await make_pod(edge)).start_sidecar()
    await pod.until_ready()
    for _ in range(3):
        await pod.until_renewed(pod.token())
    folder = pod.data / "credentials"
    await eventually(lambda: len(list(folder.iterdir())) == 2, "the link and one set")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in pod.current.iterdir()}
    assert modes == {"network.creds": 0o600, "system.creds": 0o600, "access.json": 0o600}
    assert not re.search(r"SU[A-Z2-7]{56}", pod.log() + pod.configuration.read_text()), "no seed outside of the files"


async def test_without_vault_and_earlier_credentials_it_waits_and_says_for_what(
    world: World, make_pod: MakePod
) -> None:
    pod = (await make_pod(EDGEFARM_VAULT_ADDR=f"https://127.0.0.1:{free_port()}")).start_sidecar()
    await pod.until_says("cannot be reached")
    assert pod.get("/readyz").status == 503
    assert not pod.configuration.exists()
    assert pod.sidecar is not None
    assert pod.sidecar.stop() == 0


async def test_a_leaf_without_grant_says_which_object_it_needs(world: World, make_pod: MakePod) -> None:
    pod = (await make_pod("nobody")).start_sidecar()
    await pod.until_says("no EdgeNetwork of network foo has leafs that run as service account leaf-nobody")


async def test_the_document_of_an_ordinary_pod_is_not_taken(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network(server=None, system="x")
    pod = (await make_pod(edge)).start_sidecar()
    await pod.until_says("the access document cannot be used: system: must be an object")


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        ({"fileStorage": -1}, "server.fileStorage: must be a number of bytes"),
        ({"memoryStorage": "1Gi"}, "server.memoryStorage: must be a number of bytes"),
        ({"operatorJwt": "x.y"}, "server.operatorJwt: cannot be used"),
        ({"systemAccountJwt": 'a"b'}, "server.systemAccountJwt: cannot be used"),
    ],
)
async def test_a_document_that_would_break_the_server_is_named(
    world: World, make_pod: MakePod, server: dict[str, object], sentence: str
) -> None:
    edge = await world.edge_network(server=server)
    pod = (await make_pod(edge)).start_sidecar()
    await pod.until_says(sentence)


async def test_it_waits_for_the_certificate_of_its_listener(world: World, make_pod: MakePod) -> None:
    pod = await make_pod()
    (pod.folder / "tls").rename(pod.folder / "later")
    pod.start_sidecar()
    await pod.until_says("waiting for the leaf's certificate")
    (pod.folder / "later").rename(pod.folder / "tls")
    await pod.until_ready()


@pytest.mark.parametrize(
    "damage", ["network.creds", "system.creds", "access.json", "link", "empty", "swapped", "folder"]
)
async def test_garbage_in_the_folder_is_reported_and_replaced(world: World, make_pod: MakePod, damage: str) -> None:
    pod = (await make_pod()).start_sidecar()
    await pod.until_ready()
    pod.stop()
    before = pod.token()
    folder = pod.current.resolve()
    match damage:
        case "link":
            pod.current.unlink()
            pod.current.symlink_to("absent")
        case "empty":
            (folder / "access.json").write_bytes(b"")
        case "swapped":
            (folder / "system.creds").write_bytes((folder / "network.creds").read_bytes())
        case "folder":
            pod.current.unlink()
            pod.current.write_text("no folder")
        case name:
            (folder / name).write_bytes(os.urandom(300))
    pod.start_sidecar()
    await pod.until_ready()
    await eventually(lambda: pod.current.is_symlink() and pod.token() != before, "new ones")
    assert "cannot be used" in pod.log()


async def test_a_full_disk_is_reported_and_what_was_there_stays(world: World, make_pod: MakePod) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    pod = await make_pod(await world.edge_network(renewEverySeconds=1))
    pod.data.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=512k", "leaf-test", str(pod.data))
    try:
        await pod.up()
        filler = pod.data / "filler"
        fill(filler)
        before = pod.token()
        await eventually(lambda: "the credentials cannot be written" in pod.log(), "reported", 20)
        assert pod.token() == before
        assert pod.connected()
        filler.unlink()
        await pod.until_renewed(before, 40)
    finally:
        await asyncio.to_thread(pod.stop)
        await run("umount", str(pod.data))


async def run(*command: str) -> None:
    """Run a command that must succeed."""
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass


async def test_sigterm_ends_the_sidecar_at_once_and_leaves_the_leaf_alone(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod()).up()
    assert pod.sidecar is not None
    assert pod.nats is not None
    assert pod.sidecar.stop(grace=3) == 0
    assert pod.nats.returncode is None
    assert pod.connected()


async def test_a_leaf_without_jetstream_in_its_account_has_none(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network(server={"fileStorage": 0, "memoryStorage": 0})
    pod = (await make_pod(edge)).start_sidecar()
    await pod.until_ready()
    assert "jetstream" not in pod.configuration.read_text().replace(str(pod.folder), "")
    pod.start_nats()
    await pod.until_connected()


def test_what_is_missing_in_the_environment_is_named() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sidecar", "leaf"],
        env={"PATH": os.environ["PATH"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    for variable in ("EDGEFARM_NODE_NAME", "EDGEFARM_NETWORK", "EDGEFARM_POD_IP", "EDGEFARM_VAULT_ADDR"):
        assert f"{variable} is not set" in result.stderr


def test_prepare_gives_the_folder_away_and_may_be_repeated(work: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "EDGEFARM_LEAF_DATA_DIR": str(work / "new" / "data")}
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "sidecar", "leaf", "prepare"], env=environment, cwd=ROOT, check=True)
    found = (work / "new" / "data").stat()
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65532, 65532, 0o700)


def test_prepare_says_what_it_cannot_do(work: Path) -> None:
    (work / "file").write_text("")
    environment = {"PATH": os.environ["PATH"], "EDGEFARM_LEAF_DATA_DIR": str(work / "file")}
    command = [sys.executable, "-m", "sidecar", "leaf", "prepare"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "the leaf's folder cannot be prepared" in json.loads(result.stderr)["event"]


def test_the_leafs_sidecar_stays_small() -> None:
    code = (
        "import sys, sidecar.leaf.main\n"
        "heavy = {'hvac', 'kubernetes', 'nats', 'structlog', 'prometheus_client', 'asyncio', 'yaml', 'requests', "
        "'sidecar.dapr', 'sidecar.relay', 'sidecar.supervision'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
