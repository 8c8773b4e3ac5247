"""The sidecar in mode nats, against a real OpenBao and a real nats-server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from edgefarm.secrets import mask_secrets
from localcluster.process import free_port
from localcluster.stack import Authority
from tests.natskit import eventually
from tests.sidecar.world import NAMESPACE, SidecarPod, World

MakePod = Callable[..., SidecarPod]


async def test_a_pod_with_a_grant_gets_credentials_that_allow_its_subjects_and_nothing_else(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, ("sensor.>",))
    pod = make_pod(account)
    await pod.until_ready()
    async with await world.administrator() as administrator, await pod.connect(world.hub.url) as application:
        inbox = await administrator.client.subscribe("sensor.temperature")
        await administrator.client.flush()
        await application.client.publish("sensor.temperature", b"21")
        assert (await inbox.next_msg(timeout=5)).data == b"21"
        await application.client.publish("other.temperature", b"21")
        await application.client.subscribe("sensor.>")
        await application.client.flush()
        await eventually(lambda: len(application.errors) == 2, "both refused")
    assert any("permissions violation for publish" in error.lower() for error in application.errors)
    assert any("permissions violation for subscription" in error.lower() for error in application.errors)


async def test_the_nats_user_is_named_after_the_pod_and_each_start_takes_a_new_key(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    first = pod.claims()
    assert first["name"] == f"{NAMESPACE}/{account}-0"
    assert pod.stop() == 0
    before = pod.credentials()[0]
    pod.start()
    await pod.until_renewed(before)
    assert pod.claims()["sub"] != first["sub"]


async def test_files_are_readable_by_the_application_only_where_it_needs_them(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    assert {name: pod.mode_of(name) for name in ("nats.creds", "ca.crt", "access.json")} == {
        "nats.creds": 0o440,
        "ca.crt": 0o440,
        "access.json": 0o400,
    }
    assert sorted(path.name for path in pod.creds.parent.iterdir()) == ["access.json", "ca.crt", "nats.creds"]


async def test_credentials_renew_while_old_ones_keep_working(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",), renewEverySeconds=2)
    pod = make_pod(account)
    await pod.until_ready()
    first = pod.credentials()
    async with await pod.connect(world.hub.url) as application:
        await pod.until_renewed(first[0])
        assert pod.credentials()[1] != first[1]
        await application.client.publish("a.b", b"")
        await application.client.flush()
        assert application.errors == []
    async with await pod.connect(world.hub.url):
        pass
    assert pod.ready()
    assert re.search(r"^edgefarm_sidecar_renewals_total [2-9]", pod.get("/metrics").body, re.MULTILINE)


async def test_a_rotated_key_is_picked_up_by_itself(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    before = pod.credentials()[0]
    async with await pod.connect(world.hub.url) as application:
        await world.rotate(account)
        await asyncio.wait_for(application.closed.wait(), 5)
    await pod.until_renewed(before)
    async with await pod.connect(world.hub.url) as application:
        await application.client.flush()


async def test_a_grant_that_comes_later_is_found_and_until_then_one_line_says_what_is_missing(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    pod = make_pod(account)
    sentence = f"no Policy of network foo names service account {account} in namespace {NAMESPACE}"
    await pod.until_not_ready(sentence)
    failures = re.compile(r'edgefarm_sidecar_failures_total\{kind="denied"\} ([3-9])')
    await eventually(lambda: failures.search(pod.get("/metrics").body) is not None, "several attempts", 15)
    assert sum(sentence in str(line["event"]) for line in pod.lines()) == 1
    await world.grant(account, ("a.>",))
    await pod.until_ready(within=5)


async def test_a_removed_grant_makes_the_pod_not_ready_and_a_new_one_brings_it_back(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    before = pod.credentials()[0]
    await world.revoke(account)
    await pod.until_not_ready(f"create a Policy named {account}")
    assert pod.credentials()[0] == before, "what may still be of use elsewhere is not deleted"
    await world.grant(account, ("a.>",))
    await pod.until_ready(within=5)
    async with await pod.connect(world.hub.url) as application:
        await application.client.flush()


async def test_a_token_with_a_wrong_audience_is_named_as_the_cause(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, start=False)
    (pod.folder / "token").write_text(world.reviewer.token(NAMESPACE, account, audience="vault"))
    pod.start()
    await pod.until_not_ready("the pod's token has the wrong audience ['vault']")
    assert not pod.creds.exists()


async def test_an_expired_token_is_named_as_the_cause_and_a_fresh_one_is_taken(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, start=False)
    (pod.folder / "token").write_text(world.reviewer.token(NAMESPACE, account, lifetime=timedelta(minutes=-5)))
    pod.start()
    await pod.until_not_ready("the pod's token has expired")
    (pod.folder / "token").write_text(world.reviewer.token(NAMESPACE, account))
    await pod.until_ready()


async def test_without_vault_a_restart_goes_on_with_what_an_earlier_run_left(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    before = pod.credentials()
    pod.running.signal(signal.SIGKILL)
    pod.running.wait(5)
    address = pod.environment["EDGEFARM_VAULT_ADDR"]
    pod.environment["EDGEFARM_VAULT_ADDR"] = f"https://127.0.0.1:{free_port()}"
    pod.start()
    await pod.until_ready()
    assert pod.credentials() == before
    await eventually(lambda: "cannot be reached" in pod.log(), "the outage is reported")
    async with await pod.connect(world.hub.url):
        pass
    pod.stop()
    pod.environment["EDGEFARM_VAULT_ADDR"] = address
    pod.start()
    await pod.until_renewed(before[0])


async def test_without_vault_and_without_earlier_credentials_it_waits_and_says_for_what(
    world: World, make_pod: MakePod
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, EDGEFARM_VAULT_ADDR=f"https://127.0.0.1:{free_port()}")
    await pod.until_not_ready("cannot be reached")
    assert pod.get("/healthz").status == 200
    assert pod.stop() == 0


async def test_a_vault_with_a_certificate_of_another_authority_is_not_trusted(
    world: World, make_pod: MakePod, work: Path
) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, EDGEFARM_CA_BUNDLE=Authority.create(work / "other").pem)
    await pod.until_not_ready("certificate verify failed")


async def test_damaged_files_of_an_earlier_run_are_replaced(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account, start=False)
    pod.creds.parent.mkdir()
    pod.creds.write_text("half a fi")
    (pod.creds.parent / "access.json").write_text('{"version": 1')
    pod.start()
    await pod.until_ready()
    assert any("cannot be used" in str(line["event"]) for line in pod.lines())


async def test_an_access_document_that_cannot_be_read_is_reported_by_member(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",), keyVersion="1")
    pod = make_pod(account)
    await pod.until_not_ready("keyVersion: must be a whole number greater than 0")
    world.write_document(account)
    await pod.until_ready()


async def test_no_secret_is_printed_or_shown_to_other_processes(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",), renewEverySeconds=2)
    pod = make_pod(account, EDGEFARM_LOG_LEVEL="debug")
    await pod.until_ready()
    token, seed = pod.credentials()
    proc = Path("/proc") / str(pod.running.pid)
    await pod.until_renewed(token)
    seen = pod.log() + (proc / "cmdline").read_text() + pod.get("/metrics").body + pod.get("/readyz").body
    assert mask_secrets(seen) == seen
    for secret in (token, seed, *pod.credentials(), (pod.folder / "token").read_text()):
        assert secret not in seen


async def test_sigterm_ends_it_at_once_even_while_vault_does_not_answer(world: World, make_pod: MakePod) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        pod = make_pod(world.service_account(), EDGEFARM_VAULT_ADDR=address)
        await eventually(lambda: pod.get("/healthz").status == 200, "running")
        pod.running.signal(signal.SIGTERM)
        assert await asyncio.to_thread(pod.running.wait, 2) == 0


async def test_the_probe_command_follows_readiness(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    pod = make_pod(account)
    await pod.until_not_ready("no Policy")
    assert await _probe(pod) == (1, pod.get("/readyz").body)
    await world.grant(account, ("a.>",))
    await pod.until_ready()
    assert await _probe(pod) == (0, "credentials are in place\n")


async def test_a_server_refuses_credentials_that_were_signed_by_a_removed_key(world: World, make_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_pod(account)
    await pod.until_ready()
    await world.revoke(account)
    with pytest.raises(NatsError):
        await pod.connect(world.hub.url)


async def _probe(pod: SidecarPod) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "probe", env=pod.environment, stdout=asyncio.subprocess.PIPE, cwd=os.getcwd()
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
