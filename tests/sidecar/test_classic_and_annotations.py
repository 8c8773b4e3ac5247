"""What the webhook's annotations ask of the sidecar, and its commands for clusters without native sidecars."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefarm import names
from localcluster.daprd import write_launcher
from localcluster.process import free_port
from sidecar.dapr import command
from sidecar.settings import load
from tests.natskit import eventually
from tests.sidecar.test_settings import REQUIRED
from tests.sidecar.world import JETSTREAM, SidecarPod, World

MakePod = Callable[..., SidecarPod]
_REPOSITORY = Path(__file__).parents[2]


async def _sidecar(pod: SidecarPod, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *arguments,
        env=pod.environment,
        cwd=_REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


async def test_once_waits_for_the_grant_and_ends_with_credentials_in_place(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    pod = make_pod(account, start=False)
    process = await _sidecar(pod, "once")
    assert process.stderr is not None
    assert b"create a Policy named" in await asyncio.wait_for(process.stderr.readline(), 20)
    assert process.returncode is None
    assert not pod.creds.exists()
    await world.grant(account, ("a.>",))
    assert await asyncio.wait_for(process.wait(), 20) == 0
    async with await pod.connect(world.hub.url) as application:
        await application.client.publish("a.b", b"")
        await application.client.flush()
        assert application.errors == []


async def test_once_needs_no_vault_where_an_earlier_run_left_credentials(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    assert pod.stop() == 0
    pod.environment["EDGEFARM_VAULT_ADDR"] = "https://127.0.0.1:1"
    process = await _sidecar(pod, "once")
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_once_that_is_told_to_end_without_credentials_fails(world: World, make_pod: MakePod) -> None:
    pod = make_pod(world.service_account(), start=False)
    process = await _sidecar(pod, "once")
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readline(), 20)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 1


async def test_wait_ends_when_the_sidecar_is_ready_and_not_before(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    pod = make_pod(account)
    waiting = await _sidecar(pod, "wait")
    await pod.until_not_ready("create a Policy named")
    assert waiting.returncode is None
    await world.grant(account, ("a.>",))
    assert await asyncio.wait_for(waiting.wait(), 20) == 0


async def test_a_pod_that_expects_another_policy_gets_no_credentials_and_says_so(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, EDGEFARM_POLICY="other")
    await pod.until_not_ready(
        f"the pod expects Policy other (annotation {names.ANNOTATION_POLICY}), but service account"
    )
    assert not pod.creds.exists()
    world.write_document(account, policy="other")
    await pod.until_ready()


async def test_in_a_job_daprs_own_shutdown_ends_an_ordinary_sidecar(
    world: World, make_pod: MakePod, work: Path
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>", *JETSTREAM))
    port = free_port()
    pod = make_pod(
        account,
        EDGEFARM_MODE="dapr",
        EDGEFARM_DAPRD=os.environ.get("EDGEFARM_DAPRD") or str(write_launcher(work)),
        EDGEFARM_DAPR_HTTP_PORT=str(port),
        EDGEFARM_DAPR_GRPC_PORT=str(free_port()),
        EDGEFARM_DAPR_SHUTDOWN_ENDS="true",
    )
    await pod.until_ready()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1.0/shutdown", method="POST")
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=5):
        pass
    await eventually(lambda: pod.running.returncode is not None, "the sidecar has ended")
    assert pod.running.wait(5) == 0


@pytest.mark.parametrize(
    ("variable", "value", "flag"),
    [
        ("EDGEFARM_DAPR_CONFIG", "/etc/edgefarm/dapr/config.yaml", "--config=/etc/edgefarm/dapr/config.yaml"),
        ("EDGEFARM_DAPR_APP_MAX_CONCURRENCY", "4", "--app-max-concurrency=4"),
        ("EDGEFARM_DAPR_MAX_BODY_SIZE", "16Mi", "--max-body-size=16Mi"),
        ("EDGEFARM_DAPR_API_LOGGING", "true", "--enable-api-logging"),
        ("EDGEFARM_DAPR_SHUTDOWN_SECONDS", "30", "--dapr-graceful-shutdown-seconds=30"),
        ("EDGEFARM_DAPR_APP_PORT", "8080", "--app-port=8080"),
    ],
)
def test_what_an_annotation_asks_of_dapr_is_on_its_command_line(variable: str, value: str, flag: str) -> None:
    assert flag in command(load({**REQUIRED, variable: value}).dapr)
    assert flag not in command(load(REQUIRED).dapr)


def test_a_configuration_of_the_user_comes_after_ours_so_that_it_wins() -> None:
    given = [part for part in command(load({**REQUIRED, "EDGEFARM_DAPR_CONFIG": "/c"}).dapr) if "--config=" in part]
    assert given == ["--config=/var/run/edgefarm/components/config.yaml", "--config=/c"]
