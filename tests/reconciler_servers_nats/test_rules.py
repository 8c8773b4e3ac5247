"""What the reconciler decides about its NATS, without any server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import NatsRefused, NatsUnavailable, RestartNeeded
from edgefarm.nats.serverconfig import HubIdentity, HubServer, server_config
from reconciler.adapters.serverz import check_reloaded, state_in, streams_in
from reconciler.configuration import parse_configuration
from reconciler.desired.servers import nats, nats_reload
from reconciler.desired.servers.nats_reload import Wanted
from reconciler.desired.servers.workload import ServerSpec, service
from reconciler.ports import HubServerState, Object
from reconciler.server_configuration import ServerDeployment
from tests.natskit import LocalOperator

_END = datetime(2027, 1, 1, tzinfo=UTC)
_WANTED = Wanted("new", _END)
_IDENTITY = HubIdentity("operator", "system", "account")


def deployment(**members: Any) -> ServerDeployment:
    """As a ConfigMap would say."""
    section = "".join(f"  {name}: {value}\n" for name, value in {"deploy": "true", **members}.items())
    text = f"vault: {{address: https://vault.example}}\nnats:\n{section}"
    found = parse_configuration({"config.yaml": text}).nats.deployment
    assert found is not None
    return found


def spec(**members: Any) -> ServerSpec:
    """NATS in the controller namespace."""
    return ServerSpec(names.NATS_SERVER, "network", deployment(**members), nats.PORTS, ())


def present(**members: Any) -> Object:
    """The StatefulSet that was made for this."""
    return nats.stateful_set(spec(**members), "mark")


def state(name: str = "network-nats-0", config: str = "new", until: datetime = _END) -> HubServerState:
    return HubServerState(f"id-{name}", name, config, frozenset({until}))


@pytest.mark.parametrize(
    ("before", "after", "streams", "sentence"),
    [
        ({"replicas": 3}, {"replicas": 1}, 0, "nats.replicas cannot be changed from 3 to 1"),
        ({"replicas": 1}, {"replicas": 3}, 2, "while there are streams (2 are stored)"),
        ({"replicas": 1}, {"replicas": 3}, None, "the server does not tell how many streams it has"),
        ({}, {"storage": "{size: 2Gi}"}, 0, "nats.storage.size cannot be changed from 1Gi to 2Gi"),
        ({}, {"storage": "{className: fast}"}, 0, 'nats.storage.className cannot be changed from "" to fast'),
    ],
)
def test_a_change_that_would_cost_data_is_refused_and_what_is_there_stays(
    before: dict[str, Any], after: dict[str, Any], streams: int | None, sentence: str
) -> None:
    plan = nats.plan(deployment(**after), present(**before), streams)
    (refusal,) = plan.refusals
    assert sentence in refusal
    assert plan.deployment == deployment(**before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"replicas": 1}, {"replicas": 3}),
        ({"storage": "{size: 1Gi}"}, {"storage": "{size: 1024Mi}"}),
        ({}, {"image": "nats:2.16", "memoryStorage": "1Gi"}),
    ],
)
def test_other_changes_are_followed(before: dict[str, Any], after: dict[str, Any]) -> None:
    plan = nats.plan(deployment(**after), present(**before), 0)
    assert plan.refusals == ()
    assert plan.deployment.replicas == deployment(**after).replicas
    assert plan.deployment.image == deployment(**after).image


@pytest.mark.parametrize(("decided", "scaled"), [(3, 1), (1, 3)])
def test_scaling_by_hand_decides_nothing(decided: int, scaled: int) -> None:
    found = present(replicas=decided)
    found["spec"]["replicas"] = scaled
    plan = nats.plan(deployment(replicas=decided), found, None)
    assert (plan.deployment.replicas, plan.refusals) == (decided, ())


def test_jetstream_gets_the_volume_less_a_tenth() -> None:
    config = nats.configuration(spec(storage="{size: 10Gi}", memoryStorage="1Gi"), _IDENTITY, "ca")
    assert f"max_file: {9 * 1024**3}\n" in config.text
    assert f"max_mem: {1024**3}\n" in config.text


def test_one_server_is_no_cluster_and_three_know_each_other_by_name() -> None:
    assert "cluster" not in nats.configuration(spec(), _IDENTITY, "ca").text
    text = nats.configuration(spec(replicas=3), _IDENTITY, "ca").text
    for ordinal in range(3):
        assert f'"tls://network-nats-{ordinal}.network-nats-peers.network.svc:6222"' in text


def test_the_digest_follows_text_and_authorities() -> None:
    digests = {
        nats.configuration(spec(memoryStorage=memory), _IDENTITY, authority).digest
        for memory in ("1Gi", "2Gi")
        for authority in ("one", "other")
    }
    assert len(digests) == 4


@pytest.mark.parametrize("size", [0, -1, 2**63])
def test_sizes_that_a_server_would_read_as_something_else_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        server_config(HubServer(_IDENTITY, file_bytes=size, memory_bytes=1))


def test_monitoring_is_in_no_service() -> None:
    assert {port["port"] for port in service(spec())["spec"]["ports"]} == {4222, 7422}


@pytest.mark.parametrize(
    ("states", "behind", "silent"),
    [
        ([state()], [], ["network-nats-1"]),
        ([state(), state("network-nats-1")], [], []),
        ([state(config="old"), state("network-nats-1")], ["network-nats-0"], []),
        ([state(until=datetime(2026, 1, 1, tzinfo=UTC)), state("network-nats-1")], ["network-nats-0"], []),
        ([state(), state("network-nats-1"), state("edge", config="x")], [], []),
    ],
)
def test_servers_are_settled_when_all_say_so(
    states: list[HubServerState], behind: list[str], silent: list[str]
) -> None:
    found = nats_reload.compare(_WANTED, states, ["network-nats-0", "network-nats-1"])
    assert [each.name for each in found.behind] == behind
    assert list(found.silent) == silent
    assert found.settled == (not behind and not silent)


def test_pods_that_bear_the_mark_already_get_another_one() -> None:
    first = nats_reload.next_mark("other", _WANTED)
    assert first == _WANTED.restart_mark
    second = nats_reload.next_mark(first, _WANTED)
    third = nats_reload.next_mark(second, _WANTED)
    assert len({first, second, third}) == 3
    assert nats_reload.mark_for(third, _WANTED) == third
    assert nats_reload.mark_for("other", _WANTED) == first


def test_a_mark_restarts_the_pods_and_is_found_again() -> None:
    one, other = (nats.stateful_set(spec(), mark) for mark in ("one", "other"))
    assert one["spec"]["template"] != other["spec"]["template"]
    assert nats.mark_of(other) == "other"
    assert nats.mark_of(None) == ""


def test_a_system_account_of_this_version_lets_servers_be_looked_after() -> None:
    assert nats_reload.may_look_after_servers(LocalOperator().system_token())
    assert not nats_reload.may_look_after_servers("no.jwt.atall")


def test_what_a_server_says_to_a_reload_is_told_apart() -> None:
    check_reloaded(b'{"server": {"name": "a"}}')
    with pytest.raises(RestartNeeded, match="a goes on with its old configuration: config reload not supported"):
        check_reloaded(b'{"server": {"name": "a"}, "error": {"description": "config reload not supported for x"}}')
    with pytest.raises(NatsRefused, match="unknown field") as refused:
        check_reloaded(b'{"server": {"name": "a"}, "error": {"code": 500, "description": "unknown\\nfield"}}')
    assert not isinstance(refused.value, RestartNeeded)


@pytest.mark.parametrize("read", [state_in, streams_in, check_reloaded])
@pytest.mark.parametrize("answer", [b"", b"[]", b'{"data": 1}'])
def test_an_unreadable_answer_is_no_answer(read: Any, answer: bytes) -> None:
    with pytest.raises(NatsUnavailable, match="unreadable"):
        read(answer)
