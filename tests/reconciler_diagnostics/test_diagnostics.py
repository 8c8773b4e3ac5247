"""What the reconciler answers to `edgefarm doctor`: findings come with what is broken, and go when it is mended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterable

import pytest

from edgefarm import names
from edgefarm.findings import Code, Finding, Status
from edgefarm.pages import Page
from reconciler.health import HealthServer
from tests.reconciler_diagnostics.breaks import BREAKS, INSTALLATION, NETWORK_QUERY
from tests.reconciler_diagnostics.clinic import FACTORY, NET, Clinic, labelled_pod

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_nothing_is_found_where_all_is_well(clinic: Clinic) -> None:
    assert await clinic.wrong(**NETWORK_QUERY) == set()
    assert {finding.status.value for finding in await clinic.ask(**NETWORK_QUERY)} == {"ok"}


@pytest.mark.parametrize("code", BREAKS, ids=str)
async def test_what_is_broken_is_found_and_nothing_else(clinic: Clinic, code: Code) -> None:
    case = BREAKS[code]
    try:
        async with case.broken(clinic):
            found = await clinic.wrong(**case.query)
    finally:
        await clinic.mend()
    assert code in found
    assert found - case.consequences == {code}
    assert await clinic.wrong(**INSTALLATION) == set()
    assert await clinic.wrong(**NETWORK_QUERY) == set()


async def test_a_replica_that_stands_by_does_not_answer(clinic: Clinic) -> None:
    clinic.leading = False
    page = await clinic.page.answer({"scope": "installation"})
    clinic.leading = True
    assert page.status == 503
    assert b"does not lead" in page.body


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"scope": "cluster"}, b"scope: write one of installation, network, pod, device"),
        ({"scope": "network"}, b"name: is required for scope=network"),
        ({"scope": "pod", "name": "sensor-0"}, b"namespace: is required for scope=pod"),
    ],
)
async def test_a_question_that_cannot_be_understood_is_told_what_is_missing(
    clinic: Clinic, query: dict[str, str], says: bytes
) -> None:
    page = await clinic.page.answer(query)
    assert page.status == 400
    assert says in page.body


async def test_a_pod_in_order_is_followed_to_its_grant(clinic: Clinic) -> None:
    async with clinic.having_pod("sensor-0", labelled_pod("sensor-0")):
        found = await clinic.ask(scope="pod", name="sensor-0", namespace=FACTORY)
    assert {finding.status for finding in found} == {Status.OK}
    assert {Code.NO_GRANT, Code.TOKEN_AUDIENCE, Code.ROLE_MISSING, Code.ACCOUNT_DIFFERS} <= {
        each.code for each in found
    }


async def test_a_pod_is_not_told_of_the_grants_of_others(clinic: Clinic) -> None:
    clinic.admin.delete_role(names.grant_role(NET, FACTORY, "viewer"))
    async with clinic.having_pod("sensor-1", labelled_pod("sensor-1")):
        found = await clinic.wrong(scope="pod", name="sensor-1", namespace=FACTORY)
    await clinic.mend()
    assert found == set()


async def test_what_follows_from_another_failure_is_not_called_wrong(clinic: Clinic) -> None:
    async with BREAKS[Code.VAULT_LOGIN_REFUSED].broken(clinic):
        found = await clinic.ask(**NETWORK_QUERY)
    assert codes(found, Status.ERROR) == {Code.VAULT_LOGIN_REFUSED}
    assert codes(found, Status.UNKNOWN) == {Code.NATS_REFUSES_CONTROLLER, Code.ROLE_MISSING}


async def test_an_account_that_is_gone_stands_before_what_follows_from_it(clinic: Clinic) -> None:
    async with BREAKS[Code.ACCOUNT_MISSING].broken(clinic):
        found = await clinic.ask(**NETWORK_QUERY)
    await clinic.mend()
    bad = [finding.code for finding in found if finding.status is not Status.OK]
    assert bad[0] == Code.ACCOUNT_MISSING


async def test_a_server_that_hangs_is_waited_for_a_bounded_time(clinic: Clinic) -> None:
    hub = clinic.world.hub.process.pid
    os.kill(hub, signal.SIGSTOP)
    try:
        found = await clinic.ask(scope="installation")
    finally:
        os.kill(hub, signal.SIGCONT)
    assert codes(found, Status.ERROR) == {Code.NATS_UNREACHABLE}
    await clinic.mend()


async def test_answers_hold_no_token_key_or_seed(clinic: Clinic) -> None:
    for query in (NETWORK_QUERY, {"scope": "installation"}):
        text = (await clinic.page.answer(query)).body.decode()
        assert clinic.world.openbao.root_token not in text
        assert "eyJ" not in text  # what every JWT begins with
        assert "PRIVATE" not in text


async def test_questions_are_answered_one_after_the_other(clinic: Clinic) -> None:
    pages = await asyncio.gather(*(clinic.page.answer(NETWORK_QUERY) for _ in range(4)))
    assert [page.status for page in pages] == [200] * 4
    assert len({page.body for page in pages}) == 1


async def test_a_flood_of_questions_is_refused_at_once_and_does_no_harm(clinic: Clinic) -> None:
    pages = await asyncio.gather(*(clinic.page.answer(INSTALLATION) for _ in range(40)))
    refused = [page for page in pages if page.status == 503]
    assert len(refused) >= 32
    assert all(b"too many questions" in page.body for page in refused)
    assert (await clinic.page.answer(INSTALLATION)).status == 200


async def test_looking_writes_nothing(clinic: Clinic) -> None:
    before = clinic.world.held(NET)
    clinic.reconciler.gate.reset()
    await clinic.ask(**NETWORK_QUERY)
    assert clinic.reconciler.gate.writes == []
    assert clinic.world.held(NET) == before


async def test_the_health_port_passes_questions_on(clinic: Clinic) -> None:
    server = HealthServer({"/healthz": lambda: Page.text("ok")})
    server.add_answerer("/diagnostics", clinic.page.answer)
    await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /diagnostics?scope=network&name=pl%61nt HTTP/1.1\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    await server.close()
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Type: application/json" in head
    assert Code.ACCOUNT_DIFFERS in {each["code"] for each in json.loads(body)["findings"]}


def codes(findings: Iterable[Finding], status: Status) -> set[str]:
    return {finding.code for finding in findings if finding.status is status}
