"""The pure parts: what a change of the configuration takes, when nats-server is told again, what counts as refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgefarm.errors import InvalidResource
from sidecar.leaf.access import LeafAccess
from sidecar.leaf.configuration import Change, change_to, server_of
from sidecar.leaf.settings import LeafSettings, load
from sidecar.leaf.store import LeafStore
from sidecar.leaf.upkeep import FIRST_PATIENCE, LONGEST_PATIENCE, LOST_PATIENCE, Connecting, Upkeep
from tests.natskit import LocalOperator

OPERATOR = LocalOperator()
ACCOUNT = OPERATOR.account("foo").public
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "network": "foo",
    "policy": "edge",
    "account": ACCOUNT,
    "signingKey": ACCOUNT,
    "transitKey": "leaf.foo.edge",
    "keyVersion": 1,
    "hub": ["tls://hub.example:7422"],
    "leaf": [],
    "renewEverySeconds": 3600,
    "lifetimeSeconds": 86400,
    "system": {"account": ACCOUNT, "signingKey": ACCOUNT, "transitKey": "leaf.SYS", "keyVersion": 2},
    "server": {
        "operatorJwt": OPERATOR.token(),
        "systemAccountJwt": OPERATOR.system_token(),
        "fileStorage": 1000,
        "memoryStorage": 100,
    },
}
ENVIRONMENT = {
    "EDGEFARM_NETWORK": "foo",
    "EDGEFARM_NAMESPACE": "network",
    "EDGEFARM_SERVICE_ACCOUNT": "leaf-edge",
    "EDGEFARM_POD_NAME": "leaf-edge-x",
    "EDGEFARM_POD_IP": "10.0.0.1",
    "EDGEFARM_NODE_NAME": "node.one",
    "EDGEFARM_VAULT_ADDR": "https://vault.example:8200",
    "EDGEFARM_LEAF_TLS_DIR": "/etc/nats-tls",
}
STORE = LeafStore(Path("/var/lib/edgefarm/credentials"))


def settings(**changed: str) -> LeafSettings:
    return load({**ENVIRONMENT, **changed})


def metadata(certificate: bytes = b"one", environment: dict[str, str] | None = None, **document: Any) -> dict[str, str]:
    """What a server says of itself that was started for this document."""
    server = {**DOCUMENT["server"], **document.pop("server", {})}
    access = LeafAccess.parse({**DOCUMENT, **document, "server": server})
    return dict(server_of(settings(**(environment or {})), access, STORE, certificate).metadata)


def change(before: dict[str, str], certificate: bytes = b"one", **document: Any) -> Change:
    access = LeafAccess.parse({**DOCUMENT, **document, "server": {**DOCUMENT["server"], **document.pop("server", {})}})
    return change_to(server_of(settings(), access, STORE, certificate), before)


def test_a_document_survives_being_persisted() -> None:
    assert LeafAccess.parse(LeafAccess.parse(DOCUMENT).document()) == LeafAccess.parse(DOCUMENT)


@pytest.mark.parametrize("member", ["account", "signingKey", "transitKey", "keyVersion"])
def test_what_is_missing_for_the_second_user_is_named(member: str) -> None:
    system = {name: value for name, value in DOCUMENT["system"].items() if name != member}
    with pytest.raises(InvalidResource, match=rf"^system\.{member}: must be"):
        LeafAccess.parse({**DOCUMENT, "system": system})


def test_an_unchanged_server_is_left_alone() -> None:
    assert change(metadata()) is Change.NONE


def test_renewals_and_keys_change_nothing_about_the_server() -> None:
    changed: dict[str, Any] = {
        "signingKey": OPERATOR.system.public,
        "keyVersion": 7,
        "renewEverySeconds": 5,
        "lifetimeSeconds": 9,
    }
    assert change(metadata(), **changed) is Change.NONE


@pytest.mark.parametrize(
    "document",
    [
        {"hub": ["tls://other.example:7422"]},
        {"hub": ["tls://hub.example:7422", "tls://other.example:7422"]},
        {"server": {"fileStorage": 2000}},
        {"server": {"fileStorage": 2000, "memoryStorage": 200}},
    ],
)
def test_addresses_and_larger_storage_are_reloaded(document: dict[str, Any]) -> None:
    assert change(metadata(), **document) is Change.RELOAD


def test_a_new_certificate_is_reloaded() -> None:
    assert change(metadata(), certificate=b"two") is Change.RELOAD


@pytest.mark.parametrize(
    "document",
    [
        {"server": {"fileStorage": 999}},
        {"server": {"fileStorage": 2000, "memoryStorage": 99}},
        {"server": {"fileStorage": 0, "memoryStorage": 0}},
        {"server": {"operatorJwt": LocalOperator().token()}},
        {"account": OPERATOR.system.public},
    ],
)
def test_what_cannot_be_reloaded_restarts_the_server(document: dict[str, Any]) -> None:
    assert change(metadata(), **document) is Change.RESTART


def test_a_server_that_had_no_jetstream_is_restarted_for_it() -> None:
    assert change(metadata(server={"fileStorage": 0, "memoryStorage": 0})) is Change.RESTART


@pytest.mark.parametrize("running", [{}, {"configuration": "x"}, {"file-storage": "many"}])
def test_a_server_that_was_not_started_by_us_is_restarted(running: dict[str, str]) -> None:
    assert change(running) is Change.RESTART


def test_another_node_or_address_is_another_server() -> None:
    for environment in ({"EDGEFARM_NODE_NAME": "node.two"}, {"EDGEFARM_POD_IP": "10.0.0.2"}):
        assert change(metadata(environment=environment)) is Change.RESTART


# ── telling the server ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_server_is_told_once_and_again_only_when_it_does_not_follow() -> None:
    state = Upkeep()
    assert state.due(Change.RELOAD, 0)
    state = state.ask(Change.RELOAD, 0)
    assert not state.due(Change.RELOAD, FIRST_PATIENCE - 1)
    assert not state.overdue
    assert state.due(Change.RELOAD, FIRST_PATIENCE)
    state = state.ask(Change.RELOAD, FIRST_PATIENCE)
    assert state.overdue
    assert not state.due(Change.RELOAD, FIRST_PATIENCE * 2)
    done = state.settled()
    assert (done.reloads, done.restarts, done.overdue) == (1, 0, False)
    assert done.settled() == done


def test_the_wait_between_two_attempts_grows_up_to_a_bound() -> None:
    state = Upkeep()
    for _ in range(40):
        state = state.ask(Change.RELOAD, 0)
    assert not state.due(Change.RELOAD, LONGEST_PATIENCE - 1)
    assert state.due(Change.RELOAD, LONGEST_PATIENCE)


def test_a_restart_does_not_wait_for_a_reload_that_was_asked_before() -> None:
    state = Upkeep().ask(Change.RELOAD, 0)
    assert state.due(Change.RESTART, 0.1)
    assert state.ask(Change.RESTART, 0.1).settled().restarts == 1


def test_another_configuration_does_not_wait_for_one_that_the_server_did_not_take() -> None:
    state = Upkeep().ask(Change.RELOAD, 0).ask(Change.RELOAD, FIRST_PATIENCE).renewed()
    assert not state.overdue
    assert state.due(Change.RELOAD, FIRST_PATIENCE + 1)


def test_nothing_is_due_when_nothing_changed() -> None:
    assert not Upkeep().due(Change.NONE, 1e9)


# ── the uplink ──────────────────────────────────────────────────────────────────────────────────────────────────────


def observe(
    state: Connecting, now: float, *, connected: bool = False, reachable: bool = True
) -> tuple[Connecting, bool]:
    return state.observe(connected=connected, reachable=reachable, now=now)


def test_a_missing_connection_to_a_hub_that_can_be_reached_counts_as_refused_after_a_while() -> None:
    state, refused = observe(Connecting(), 0)
    assert not refused
    state, refused = observe(state, LOST_PATIENCE - 1)
    assert not refused
    state, refused = observe(state, LOST_PATIENCE)
    assert refused


def test_refusals_become_rarer() -> None:
    state, found, now = Connecting(), [], 0.0
    while now < 3600:
        state, refused = observe(state, now)
        if refused:
            found.append(now)
        now += 2
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= LONGEST_PATIENCE
    assert len(found) < 20


def test_an_unreachable_hub_refuses_nothing_however_long_it_is_away() -> None:
    state = Connecting()
    for now in range(0, 100_000, 100):
        state, refused = observe(state, now, reachable=False)
        assert not refused
    assert not observe(state, 100_000)[1], "the wait begins when it can be reached again"


def test_a_connection_ends_all_suspicion() -> None:
    state = replace(Connecting(), lost_since=0.0, refusals=5)
    assert observe(state, 1e6, connected=True) == (Connecting(), False)
