"""What a holder of credentials may try to get more than its Policy or its network gives, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from edgefarm.nats.subjects import covers
from edgefarm.nats.templates import PermissionTemplate, template_of_policy
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Hub, LocalAccount, make_user

ANYTHING = PermissionTemplate()
SUBJECTS = [".".join(tokens) for length in (1, 2, 3, 4) for tokens in itertools.product("ab", repeat=length)]
INBOXES = ["_INBOX.x", "_INBOX.x.y"]
#: Every shape of a subscription that could reach them.
SUBSCRIPTIONS = [
    *(".".join(tokens) for length in (1, 2, 3, 4) for tokens in itertools.product("a*", repeat=length)),
    *(".".join((*tokens, ">")) for length in (0, 1, 2, 3) for tokens in itertools.product("a*", repeat=length)),
    "_INBOX.>",
    "_INBOX.*",
]


def policies(seed: int, count: int) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Lists of `allowpub`, `allowsub` and `denysub`, rich in wildcards."""
    chance = random.Random(seed)

    def pattern() -> str:
        tokens = [chance.choice("ab**") for _ in range(chance.randint(1, 3))]
        return ".".join([*tokens[:-1], ">"] if chance.random() < 0.3 else tokens)

    for _ in range(count):
        allow = [pattern() for _ in range(chance.randint(1, 3))]
        deny = [pattern() for _ in range(chance.randint(0, 2))]
        yield chance.choice([[], ["elsewhere"]]), allow, deny


async def join(hub: Hub, system: SystemClient, template: PermissionTemplate) -> tuple[LocalAccount, Connection]:
    """A network with an `admin` who may do anything, and a user under this template."""
    account = hub.operator.account("net")
    account.scope("admin", ANYTHING)
    account.scope("tried", template)
    await system.push(account.token())
    return account, await Connection.open(hub.url, hub.authority, account.user("tried"))


@pytest.mark.parametrize("seed", range(4))
async def test_no_form_of_subscription_gets_more_than_the_policy_allows(
    hub: Hub, system: SystemClient, seed: int
) -> None:
    for allowpub, allowsub, denysub in policies(seed, 5):
        account, user = await join(hub, system, template_of_policy(allowpub, allowsub, [], denysub))
        got: dict[tuple[str, str], set[str]] = {}
        for subscription, group in itertools.product(SUBSCRIPTIONS, ("", "group")):
            await listen(user, subscription, group, got.setdefault((subscription, group), set()))
        await user.settle()
        async with user, await Connection.open(hub.url, hub.authority, account.user("admin")) as admin:
            for subject in (*SUBJECTS, *INBOXES):
                await admin.client.publish(subject)
            await admin.settle()
            await user.settle()
        for how, subjects in got.items():
            for subject in subjects:
                replies = bool(allowpub) and subject.startswith("_INBOX.")
                allowed = replies or any(covers(pattern, subject) for pattern in allowsub)
                denied = any(covers(pattern, subject) for pattern in denysub)
                assert (allowed, denied) == (True, False), (allowpub, allowsub, denysub, how, subject)


async def listen(user: Connection, subscription: str, group: str, got: set[str]) -> None:
    async def note(message: Msg) -> None:
        got.add(message.subject)

    await user.client.subscribe(subscription, queue=group, cb=note)


@pytest.mark.parametrize(
    "subject",
    [
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.CLAIMS.PACK",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.ACCOUNT.{other}.CLAIMS.LOOKUP",
        "$SYS.REQ.ACCOUNT.{other}.CLAIMS.UPDATE",
        "$SYS.REQ.ACCOUNT.{other}.CONNZ",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.VARZ",
    ],
)
async def test_who_may_do_anything_in_a_network_still_gets_no_answer_from_the_system_account(
    hub: Hub, system: SystemClient, subject: str
) -> None:
    other = hub.operator.account("other")
    await system.push(other.token())
    _, user = await join(hub, system, ANYTHING)
    async with user:
        with pytest.raises(nats.errors.NoRespondersError):
            await user.client.request(subject.format(other=other.public), other.token().encode(), timeout=2)


@pytest.mark.parametrize("subject", ["$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"])
async def test_the_connections_that_the_server_tells_of_are_those_of_the_network(
    hub: Hub, system: SystemClient, subject: str
) -> None:
    other = hub.operator.account("other")
    other.scope("admin", ANYTHING)
    await system.push(other.token())
    _, user = await join(hub, system, ANYTHING)
    async with user, await Connection.open(hub.url, hub.authority, other.user("admin")):
        for asked in ({}, {"auth": True, "subscriptions": True}, {"auth": True, "acc": other.public}):
            answer = await user.client.request(subject, json.dumps(asked).encode(), timeout=2)
            told = json.loads(answer.data)["data"]["connections"]
            assert [connection["cid"] for connection in told] == [user.client.client_id]
            assert other.public not in answer.data.decode()


async def test_who_may_do_anything_in_a_network_sees_no_events_of_others(hub: Hub, system: SystemClient) -> None:
    other = hub.operator.account("other")
    other.scope("admin", ANYTHING)
    await system.push(other.token())
    _, user = await join(hub, system, ANYTHING)
    async with user:
        seen: set[str] = set()
        await listen(user, "$SYS.>", "", seen)
        await listen(user, ">", "", seen)
        await user.settle()
        async with await Connection.open(hub.url, hub.authority, other.user("admin")) as stranger:
            await stranger.client.publish("secret")
            await stranger.settle()
        await user.settle()
        assert not {subject for subject in seen if other.public in subject or subject == "secret"}


@pytest.mark.parametrize(
    "subject", ["$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.x", "$SYS.REQ.USER.INFO", "$KV.x.y"]
)
async def test_a_policy_that_does_not_name_them_gives_no_services_of_the_account(
    hub: Hub, system: SystemClient, subject: str
) -> None:
    _, user = await join(hub, system, template_of_policy(["sensor.>"], [], [], []))
    async with user:
        with pytest.raises(asyncio.TimeoutError):
            await user.client.request(subject, b"", timeout=0.2)
        assert [error for error in user.errors if "permissions violation for publish" in error.lower()]


@pytest.mark.parametrize(
    "extra",
    [{"version": 1, "pub": {"allow": [">"]}}, {"version": 1, "permissions": {"pub": {"allow": [">"]}}}],
    ids=str,
)
async def test_claims_of_an_older_layout_give_no_more(hub: Hub, system: SystemClient, extra: dict[str, Any]) -> None:
    account, user = await join(hub, system, template_of_policy(["sensor.>"], [], [], []))
    await user.client.close()
    try:
        forged = await Connection.open(hub.url, hub.authority, account.user("tried", **extra))
    except nats.errors.Error:
        return
    async with forged:
        await forged.client.publish("other")
        await forged.settle()
        assert forged.errors


async def test_who_may_create_a_consumer_reads_the_stream_and_delivers_it_anywhere(
    hub: Hub, system: SystemClient
) -> None:
    # Not what one would wish: docs/security.md tells, and this test notices when NATS changes it.
    account, reader = await join(hub, system, template_of_policy(["$JS.API.CONSUMER.CREATE.S"], [], [], []))
    async with reader, await Connection.open(hub.url, hub.authority, account.user("admin")) as admin:
        await admin.client.jetstream().add_stream(name="S", subjects=["sensor.>"])
        await admin.client.jetstream().publish("sensor.a", b"recorded")
        elsewhere = await admin.client.subscribe("command.stop")
        await admin.settle()
        config = {"deliver_subject": "command.stop", "deliver_policy": "all", "ack_policy": "none"}
        request = json.dumps({"stream_name": "S", "config": config}).encode()
        answer = await reader.client.request("$JS.API.CONSUMER.CREATE.S", request, timeout=2)
        assert "error" not in json.loads(answer.data)
        assert (await elsewhere.next_msg(timeout=5)).data == b"recorded"


async def test_a_policys_key_signs_users_of_its_own_account_only(hub: Hub, system: SystemClient) -> None:
    account, user = await join(hub, system, template_of_policy(["sensor.>"], [], [], []))
    await user.client.close()
    key, _ = account.keys["tried"]
    for claimed in (hub.operator.system.public, key.public):
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await Connection.open(hub.url, hub.authority, make_user(claimed, key))
