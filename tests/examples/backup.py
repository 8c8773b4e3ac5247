"""What the test of the backup does to the servers, and what it looks at before and after."""

from __future__ import annotations

import asyncio
import shutil

import aiohttp

from edgefarm import names
from localcluster.client import has_condition
from localcluster.demo.observer import NETWORKS
from localcluster.platform import Platform
from localcluster.process import LocalProcess
from localcluster.stack import OpenBao, find_program

#: The example whose network is backed up.
NETWORK = "dapr-python"


def snapshot(server: OpenBao, command: str, *arguments: object) -> None:
    """`bao operator raft snapshot`, as an administrator runs it."""
    process = LocalProcess.start(
        "bao",
        [find_program("bao"), "operator", "raft", "snapshot", command, *map(str, arguments)],
        log=server.ca.parent / f"snapshot-{command}.log",
        env={"BAO_ADDR": server.address, "BAO_CACERT": str(server.ca), "BAO_TOKEN": server.root_token},
    )
    assert process.wait(30) == 0, process.tail()


def lose_disks(platform: Platform) -> None:
    """What is left is what the procedure asks to keep elsewhere: the seal's key and the servers' configuration."""
    shutil.rmtree(platform.folder / "openbao" / "data")
    (platform.folder / "openbao" / "root-token").unlink()
    shutil.rmtree(platform.folder / "nats" / "jetstream")
    shutil.rmtree(platform.folder / "nats" / "accounts")


def received(platform: Platform) -> list[str]:
    """What the receiver of the example has printed."""
    logs = (platform.node_folder / "logs").glob(f"{NETWORK}_receiver-*_app.log")
    return [line for log in logs for line in log.read_text().splitlines() if " from " in line]


async def identity(platform: Platform) -> tuple[str, list[str]]:
    """The network's account as the servers were seen to hold it, and the names of all keys in Vault."""
    network = await platform.kube.wait_for(
        NETWORKS, NETWORK, names.CONTROLLER_NAMESPACE, until=has_condition("Ready"), timeout=60
    )
    assert network is not None
    return network["status"]["account"], sorted(await asyncio.to_thread(platform.vault.keys))


async def stored(platform: Platform) -> int:
    """Messages that the hub holds, as its monitoring says."""
    async with aiohttp.ClientSession() as session, session.get(f"{platform.nats.monitor}/jsz") as answer:
        return int((await answer.json())["messages"])
