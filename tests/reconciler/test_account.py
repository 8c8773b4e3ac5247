"""What an account says, and when it has to be pushed."""

from __future__ import annotations

from typing import Any

from edgefarm.api.network import Limits, Network
from edgefarm.api.policy import Permissions
from edgefarm.nats import nkeys
from edgefarm.nats.claims import ScopedKey
from edgefarm.nats.nkeys import Prefix
from reconciler.desired.account import Comparison, Envelope, claims_of, compare, next_issued_at
from reconciler.desired.rights import rights_of
from reconciler.ports import AccountOnServer
from tests.natskit import sign
from tests.reconciler.objects import NOW, network

OPERATOR = nkeys.generate(Prefix.OPERATOR)
ACCOUNT = nkeys.generate(Prefix.ACCOUNT)
KEY = nkeys.generate(Prefix.ACCOUNT)


def claims(issued_at: int = 100, subjects: tuple[str, ...] = ("a.>",), **spec: Any) -> dict[str, Any]:
    parsed = Network.parse(network(**spec))
    keys = [ScopedKey(KEY.public, "factory.sensor", rights_of(Permissions(allow_publish=subjects), (), "own").template)]
    return claims_of(parsed, ACCOUNT.public, keys, Envelope(OPERATOR.public, f"jti-{issued_at}", issued_at))


def test_limits_come_from_the_network_and_nothing_means_no_jetstream() -> None:
    limits = claims()["nats"]["limits"]
    assert (limits["disk_storage"], limits["mem_storage"]) == (0, 0)
    limits = claims(limits={"filestorage": "1Gi", "inmemorystorage": "1k"})["nats"]["limits"]
    assert (limits["disk_storage"], limits["mem_storage"], limits["streams"]) == (2**30, 1000, -1)
    assert Network.parse(network(limits={"immemorystorage": "1k"})).limits == Limits(0, 1000)


def test_servers_that_hold_the_same_need_no_push() -> None:
    stored = sign(claims(100), OPERATOR)
    answers = [AccountOnServer("one", stored), AccountOnServer("two", sign(claims(90), OPERATOR))]
    assert compare(answers, claims(200), [OPERATOR.public]) == Comparison((), (), 100)


def test_missing_different_and_foreign_accounts_are_told_apart() -> None:
    stranger = nkeys.generate(Prefix.OPERATOR)
    answers = [
        AccountOnServer("absent", None),
        AccountOnServer("old", sign(claims(subjects=("b.>",)), OPERATOR)),
        AccountOnServer("foreign", sign({**claims(900), "iss": stranger.public}, stranger)),
        AccountOnServer("broken", "not.a.jwt"),
        AccountOnServer("fine", sign(claims(), OPERATOR)),
    ]
    found = compare(answers, claims(), [OPERATOR.public])
    assert found == Comparison(("absent",), ("broken", "foreign", "old"), 900)
    assert not found.equal


def test_the_time_of_issue_always_increases() -> None:
    now = int(NOW.timestamp())
    assert next_issued_at(NOW, 0) == now
    assert next_issued_at(NOW, now) == now + 1
    assert next_issued_at(NOW, now + 500) == now + 501
