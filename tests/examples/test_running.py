"""Examples, the tutorial and the restore of a backup, on the product as the demo installs it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from localcluster.daprd import write_launcher
from localcluster.platform import Platform, PlatformOptions
from localcluster.stack import find_program
from tests.e2e.given import installed
from tests.examples.backup import NETWORK, identity, lose_disks, received, snapshot, stored
from tests.examples.manifests import FOLDER, objects
from tests.examples.tutorial import Command, commands

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = FOLDER.parent
PATIENCE = 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    folder: Path = tmp_path_factory.mktemp("platform")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    options = PlatformOptions(
        daprd=write_launcher(folder), kubebuilder_assets=Path(assets) if assets else None, resync="3s"
    )
    async with installed(folder, options) as running:
        yield running


async def run(platform: Platform, command: str) -> tuple[int, str]:
    """Run one command of a user in the project's folder; exit status and output."""
    program, *arguments = shlex.split(command)
    process = await asyncio.create_subprocess_exec(
        find_program(program),
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(platform.folder), "KUBECONFIG": str(platform.api.kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode()


async def until(platform: Platform, command: Command) -> None:
    """Run a command, again and again where it is one that shows something, until it prints what it shall."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status, output = await run(platform, command.line)
        missing = [word for word in command.shows if word not in output]
        if status == 0 and not missing:
            return
        assert command.only_looks, f"{command.line}: {output}"
        assert time.monotonic() < deadline, f"{command.line}: no {missing} in\n{output}"
        await asyncio.sleep(0.2)


async def test_every_command_of_the_tutorial_does_what_it_shows(platform: Platform) -> None:
    for command in commands(ROOT / "docs" / "tutorial.md"):
        await until(platform, command)


async def test_the_clock_of_the_nats_application_answers(platform: Platform) -> None:
    await until(platform, Command("kubectl apply -k examples/nats-app", ("deployment.apps/asker created",)))
    await until(platform, Command("kubectl -n nats-app logs deploy/asker -c app", ("+00:00",)))
    await until(platform, Command("kubectl delete -k examples/nats-app --ignore-not-found", ("deleted",)))


async def test_after_a_restore_keys_accounts_and_messages_are_there_and_pods_go_on(platform: Platform) -> None:
    """The procedure of docs/operations.md, when both servers have lost their disks."""
    counted = len(received(platform))
    await platform.kube.apply(objects(NETWORK))
    await eventually(lambda: len(received(platform)) > counted, "messages arrive")
    before = await identity(platform)

    saved, streams = platform.folder / "bao.snapshot", platform.folder / "streams.backup"
    snapshot(platform.bao, "save", saved)
    port = int(platform.nats.url.rpartition(":")[2])
    kept = await stored(platform)
    await asyncio.to_thread(platform.nats.stop)
    shutil.copytree(platform.folder / "nats" / "jetstream", streams)
    vault_port = int(platform.bao.address.rpartition(":")[2])
    await asyncio.to_thread(platform.bao.stop)
    lose_disks(platform)

    shutil.copytree(streams, platform.folder / "nats" / "jetstream")
    # A new OpenBao: the old seal's key, an empty disk, a root token of its own until the snapshot is restored.
    old_token = platform.bao.root_token
    await asyncio.to_thread(platform.start_openbao, vault_port)
    assert platform.bao.root_token != old_token
    snapshot(platform.bao, "restore", "-force", saved)
    await asyncio.to_thread(platform.start_nats, port)

    counted = len(received(platform))
    await eventually(lambda: len(received(platform)) > counted, "messages arrive again")
    assert await identity(platform) == before
    assert await stored(platform) >= kept


async def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)
