"""What users under a scoped key may do, tried one by one on a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.aio.msg import Msg

from edgefarm.nats.claims import AccountLimits
from edgefarm.nats.templates import PermissionTemplate, template_of_policy
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Hub, LocalAccount, make_user

ANYTHING = PermissionTemplate()
NOTHING: tuple[str, ...] = ()


class Peer:
    """An account with a user who may do anything, beside the users that are tried."""

    def __init__(self, hub: Hub, system: SystemClient) -> None:
        self.hub, self.system = hub, system
        self.account = hub.operator.account("net")
        self.account.scope("admin", ANYTHING)

    async def push(self) -> LocalAccount:
        await self.system.push(self.account.token())
        return self.account

    async def admin(self) -> Connection:
        return await self.login("admin")

    async def login(self, role: str) -> Connection:
        return await Connection.open(self.hub.url, self.hub.authority, self.account.user(role))

    async def under(self, template: PermissionTemplate) -> Connection:
        """A user under a scoped key with this template."""
        self.account.scope("tried", template)
        await self.push()
        return await self.login("tried")


@pytest.fixture
def peer(hub: Hub, system: SystemClient) -> Peer:
    return Peer(hub, system)


async def may_publish(connection: Connection, subject: str) -> bool:
    await connection.client.publish(subject, b"x")
    return not await told(connection, "publish", subject)


async def may_subscribe(connection: Connection, pattern: str) -> bool:
    subscription = await connection.client.subscribe(pattern)
    refused = await told(connection, "subscription", pattern)
    if not refused:
        await subscription.unsubscribe()
    return not refused


async def told(connection: Connection, action: str, subject: str) -> bool:
    """Whether the server reported a permissions violation for this action (and nothing else was reported)."""
    await connection.settle()
    errors, connection.errors[:] = list(connection.errors), []
    expected = re.compile(rf'permissions violation for {action} to "{re.escape(subject)}"', re.IGNORECASE)
    assert all(expected.search(error) for error in errors), errors
    return bool(errors)


async def received(connection: Connection, pattern: str, act: Callable[[], Awaitable[None]]) -> list[str]:
    """The subjects that arrive on a subscription while `act` is done."""
    seen: list[str] = []

    async def note(message: Msg) -> None:
        seen.append(message.subject)

    await connection.client.subscribe(pattern, cb=note)
    await connection.settle()
    await act()
    await connection.settle()
    return seen


async def test_allowed_subjects_pass_and_all_others_are_refused(peer: Peer) -> None:
    template = template_of_policy(["sensor.>", "exact"], ["alarm.*", "status"], NOTHING, NOTHING)
    async with await peer.under(template) as user:
        for subject in ("sensor.a", "sensor.a.b", "exact"):
            assert await may_publish(user, subject), subject
        for subject in ("sensor", "exactly", "exact.a", "alarm.fire", "other", "$SYS.REQ.USER.X", "_INBOX.a"):
            assert not await may_publish(user, subject), subject
        for pattern in ("alarm.fire", "alarm.*", "status", "_INBOX.>", "_INBOX.a.b"):
            assert await may_subscribe(user, pattern), pattern
        for pattern in ("alarm", "alarm.a.b", "alarm.*.>", "*", ">", "sensor.a", "_inbox.a"):
            assert not await may_subscribe(user, pattern), pattern


async def test_an_empty_allowpub_means_that_nothing_may_be_published(peer: Peer) -> None:
    async with await peer.under(template_of_policy(NOTHING, ["sensor.>"], NOTHING, NOTHING)) as user:
        for subject in ("sensor.a", "a", "_INBOX.a", "$JS.API.INFO"):
            assert not await may_publish(user, subject), subject
        assert await may_subscribe(user, "sensor.>")
        assert not await may_subscribe(user, "_INBOX.>")


async def test_an_empty_allowsub_means_that_nothing_but_replies_may_be_received(peer: Peer) -> None:
    async with await peer.under(template_of_policy(["sensor.>"], NOTHING, NOTHING, NOTHING)) as user:
        for pattern in ("sensor.>", "sensor.a", ">", "a"):
            assert not await may_subscribe(user, pattern), pattern
        assert await may_subscribe(user, "_INBOX.x.*")
        assert await may_publish(user, "sensor.a")


async def test_with_both_lists_empty_everything_is_denied(peer: Peer) -> None:
    template = template_of_policy(NOTHING, NOTHING, ["a"], ["b"])
    assert template == PermissionTemplate(pub_deny=(">",), sub_deny=(">",))
    async with await peer.under(template) as user:
        for subject in ("a", "b", "c.d", "_INBOX.x"):
            assert not await may_publish(user, subject), subject
            assert not await may_subscribe(user, subject), subject


async def test_denied_subjects_are_refused_although_they_are_allowed(peer: Peer) -> None:
    template = template_of_policy(["sensor.>"], ["sensor.>"], ["sensor.secret.>"], ["sensor.private"])
    async with await peer.under(template) as user, await peer.admin() as admin:
        assert await may_publish(user, "sensor.a")
        assert not await may_publish(user, "sensor.secret.a")
        assert not await may_subscribe(user, "sensor.private")

        async def publish() -> None:
            for subject in ("sensor.a", "sensor.private", "sensor.b"):
                await admin.client.publish(subject)
            await admin.settle()

        assert await received(user, "sensor.>", publish) == ["sensor.a", "sensor.b"]


@pytest.mark.parametrize(
    ("allowed", "subscription", "sent", "arrive"),
    [
        (["a.*"], "a.>", ["a.b", "a.b.c", "a.b.c.d"], ["a.b"]),
        (["*"], ">", ["a", "a.b", "a.b.c"], ["a"]),
        (["a.*", "a.*.*"], "a.>", ["a.b", "a.b.c", "a.b.c.d"], ["a.b", "a.b.c"]),
        (["a.*", "a.>"], "a.>", ["a.b", "a.b.c"], ["a.b", "a.b.c"]),
    ],
)
async def test_a_star_at_the_end_means_one_token_also_for_who_subscribes_to_everything_below(
    peer: Peer, allowed: list[str], subscription: str, sent: list[str], arrive: list[str]
) -> None:
    template = template_of_policy(NOTHING, allowed, NOTHING, NOTHING)
    async with await peer.under(template) as user, await peer.admin() as admin:

        async def publish() -> None:
            for subject in sent:
                await admin.client.publish(subject)
            await admin.settle()

        assert await received(user, subscription, publish) == arrive


async def test_who_denies_all_inboxes_gets_no_replies(peer: Peer) -> None:
    for denied in ("_INBOX.>", ">", "*.>"):
        template = template_of_policy(["a"], NOTHING, NOTHING, [denied])
        assert template == PermissionTemplate(pub_allow=("a",), sub_deny=(">",))
    async with await peer.under(template) as user:
        assert await may_publish(user, "a")
        assert not await may_subscribe(user, "_INBOX.a")


async def test_denying_one_inbox_leaves_the_others(peer: Peer) -> None:
    template = template_of_policy(["a"], NOTHING, NOTHING, ["_INBOX.special.>"])
    async with await peer.under(template) as user:
        assert await may_subscribe(user, "_INBOX.x")
        assert not await may_subscribe(user, "_INBOX.special.x")


async def test_a_publisher_gets_replies_to_its_requests(peer: Peer) -> None:
    template = template_of_policy(["question"], NOTHING, NOTHING, NOTHING)
    async with await peer.under(template) as user, await peer.admin() as admin:

        async def answer(message: Msg) -> None:
            await message.respond(b"42")

        await admin.client.subscribe("question", cb=answer)
        await admin.settle()
        assert (await user.client.request("question", timeout=2)).data == b"42"


async def test_a_publisher_gets_the_acknowledgement_of_a_stream(peer: Peer) -> None:
    template = template_of_policy(["sensor.>"], NOTHING, NOTHING, NOTHING)
    async with await peer.under(template) as user, await peer.admin() as admin:
        await admin.client.jetstream().add_stream(name="sensors", subjects=["sensor.>"])
        assert (await user.client.jetstream().publish("sensor.a", b"x", timeout=2)).stream == "sensors"


@pytest.mark.parametrize(
    "extra",
    [
        {"subs": 1},
        {"payload": 10},
        {"data": 10},
        {"bearer_token": True},
        {"pub": {"allow": [">"]}},
        {"sub": {"allow": ["a"]}},
        {"allowed_connection_types": ["STANDARD"]},
        {"src": ["127.0.0.1/32"]},
        {"resp": {"max": 1, "ttl": 1}},
    ],
    ids=lambda extra: str(next(iter(extra))),
)
async def test_a_user_that_adds_limits_or_rights_of_its_own_is_refused(peer: Peer, extra: dict[str, Any]) -> None:
    peer.account.scope("tried", template_of_policy(["a"], NOTHING, NOTHING, NOTHING))
    account = await peer.push()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await Connection.open(peer.hub.url, peer.hub.authority, account.user("tried", **extra))


async def test_expired_credentials_are_refused_and_a_live_connection_ends_with_them(peer: Peer) -> None:
    account = await peer.push()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await Connection.open(peer.hub.url, peer.hub.authority, account.user("admin", lifetime=-1))
    async with await Connection.open(peer.hub.url, peer.hub.authority, account.user("admin", lifetime=2)) as user:
        await until_closed(user, 4)


async def test_removing_a_scoped_key_cuts_its_live_connections_and_no_others(peer: Peer) -> None:
    async with await peer.under(ANYTHING) as user, await peer.admin() as admin:
        credentials = peer.account.user("tried")
        del peer.account.keys["tried"]
        await peer.push()
        await until_closed(user, 2)
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await Connection.open(peer.hub.url, peer.hub.authority, credentials)
        await admin.settle()
        assert not admin.closed.is_set()


async def test_changing_a_template_cuts_its_live_connections_and_the_new_one_holds(peer: Peer) -> None:
    before, after = (template_of_policy([subject], NOTHING, NOTHING, NOTHING) for subject in "ab")
    async with await peer.under(before) as user, await peer.under(after) as again:
        await until_closed(user, 2)
        assert await may_publish(again, "b")
        assert not await may_publish(again, "a")


async def test_adding_a_key_or_changing_limits_disturbs_nobody(peer: Peer) -> None:
    async with await peer.under(ANYTHING) as user:
        peer.account.scope("another", ANYTHING)
        peer.account.limits = AccountLimits(disk_storage=1 << 20)
        await peer.push()
        async with await peer.login("another"):
            await user.settle()
            assert not user.closed.is_set()


async def test_deleting_an_account_cuts_its_live_connections(peer: Peer) -> None:
    async with await peer.under(ANYTHING) as user:
        await peer.system.delete(peer.hub.operator.delete_token(peer.account.public))
        await until_closed(user, 2)


async def test_a_user_of_one_account_sees_nothing_of_another(peer: Peer, hub: Hub, system: SystemClient) -> None:
    other = Peer(hub, system)
    async with await peer.under(ANYTHING) as ours, await other.under(ANYTHING) as theirs:

        async def publish() -> None:
            await theirs.client.publish("secret")
            await theirs.settle()
            await ours.client.publish("own")

        assert await received(ours, ">", publish) == ["own"]


async def test_a_user_signed_by_a_key_of_another_account_is_refused(peer: Peer, hub: Hub, system: SystemClient) -> None:
    other = Peer(hub, system)
    await other.push()
    await peer.push()
    stolen = peer.account.keys["admin"][0]
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await Connection.open(hub.url, hub.authority, make_user(other.account.public, stolen))


async def test_a_connection_of_another_type_than_allowed_is_refused(peer: Peer) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await peer.under(PermissionTemplate(connection_types=("LEAFNODE",)))


async def test_storage_limits_are_kept_and_no_storage_means_no_streams(peer: Peer) -> None:
    peer.account.limits = AccountLimits(mem_storage=0, disk_storage=1 << 20)
    async with await peer.under(ANYTHING) as user:
        stream = user.client.jetstream()
        await stream.add_stream(name="small", subjects=["small"], max_bytes=1 << 19)
        with pytest.raises(nats.js.errors.Error):
            await stream.add_stream(name="large", subjects=["large"], max_bytes=1 << 21)
    peer.account = peer.hub.operator.account("bare", AccountLimits(mem_storage=0, disk_storage=0))
    async with await peer.under(ANYTHING) as user:
        with pytest.raises((nats.errors.NoRespondersError, nats.js.errors.Error)):
            await user.client.jetstream().account_info()


async def until_closed(connection: Connection, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await connection.closed.wait()
