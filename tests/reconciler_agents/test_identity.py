"""What a TokenReview proves, as a table; and what the registry makes of sessions and time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from edgefarm.agentbus import Denied
from edgefarm.errors import KubernetesUnavailable
from localcluster.stack import Authority
from reconciler.adapters.kube import KubeClient
from reconciler.agent_identity import Identity, identify
from reconciler.agents import AgentRegistry
from reconciler.ports import ConnectedAgent
from reconciler.settings import KubernetesSettings
from tests.vault.reviewer import TokenReviewer

Json = dict[str, Any]
EXTRA = "authentication.kubernetes.io/"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def status(**changes: Any) -> Json:
    """The status of a review that proves the agent of node n1."""
    extra = {f"{EXTRA}pod-name": ["p"], f"{EXTRA}pod-uid": ["u"], f"{EXTRA}node-name": ["n1"]}
    user = {"username": "system:serviceaccount:network:network-agent", "extra": extra}
    return {"authenticated": True, "audiences": [names.AGENT_AUDIENCE], "user": user, **changes}


def with_user(**changes: Any) -> Json:
    return status(user={**status()["user"], **changes})


def without(extra: str) -> Json:
    left = {name: value for name, value in status()["user"]["extra"].items() if name != f"{EXTRA}{extra}"}
    return with_user(extra=left)


def test_a_bound_token_of_an_agent_names_its_device() -> None:
    assert identify(status(), "network") == Identity("edge", "n1", "p", "u")
    gateway = identify(with_user(username="system:serviceaccount:network:network-gateway"), "network")
    assert isinstance(gateway, Identity)
    assert (gateway.role, gateway.device) == ("gateway", "gateway.n1")


@pytest.mark.parametrize(
    ("review", "reason"),
    [
        ({}, "TokenRefused"),
        ({"authenticated": False, "error": "service account token has expired"}, "TokenRefused"),
        (status(authenticated="true"), "TokenRefused"),
        (status(audiences=[]), "TokenRefused"),
        (status(audiences=["https://kubernetes.default.svc"]), "TokenRefused"),
        (status(user={}), "NotAnAgent"),
        (with_user(username="admin"), "NotAnAgent"),
        (with_user(username="system:serviceaccount:network:default"), "NotAnAgent"),
        (with_user(username="system:serviceaccount:network-2:network-agent"), "NotAnAgent"),
        (with_user(username="system:serviceaccount:network:network-agent:x"), "NotAnAgent"),
        (with_user(username="system:node:network-agent"), "NotAnAgent"),
        (with_user(extra=None), "NotAPod"),
        (without("pod-name"), "NotAPod"),
        (without("pod-uid"), "NotAPod"),
        (without("node-name"), "NoNode"),
        (with_user(extra={**status()["user"]["extra"], f"{EXTRA}node-name": ["n1", "n2"]}), "NoNode"),
        (with_user(extra={**status()["user"]["extra"], f"{EXTRA}node-name": "n1"}), "NoNode"),
    ],
)
def test_anything_less_is_refused_with_a_reason(review: Json, reason: str) -> None:
    decision = identify(review, "network")
    assert isinstance(decision, Denied)
    assert decision.reason == reason


def test_the_api_servers_own_words_are_told() -> None:
    decision = identify({"authenticated": False, "error": "service account token has expired"}, "network")
    assert isinstance(decision, Denied)
    assert "service account token has expired" in decision.message


async def kube_at(url: str, authority: Authority, folder: Path) -> KubeClient:
    """A client of an API server that is a stand-in."""
    (folder / "ca.crt").write_text(authority.pem)
    (folder / "token").write_text("token")
    host, _, port = url.removeprefix("https://").partition(":")
    return await KubeClient.connect(KubernetesSettings(folder, host, int(port), None))


async def test_an_expired_token_is_refused(reviewer: TokenReviewer, authority: Authority, work: Path) -> None:
    kube = await kube_at(reviewer.url, authority, work)
    try:
        for lifetime, reason in ((timedelta(hours=-1), "TokenRefused"), (timedelta(hours=1), "NotAPod")):
            token = reviewer.token("network", "network-agent", audience=names.AGENT_AUDIENCE, lifetime=lifetime)
            decision = identify(await kube.review_token(token, [names.AGENT_AUDIENCE]), "network")
            assert isinstance(decision, Denied)
            assert decision.reason == reason
            assert token not in decision.message
        assert kube.writes == 0
    finally:
        await kube.close()


async def test_a_review_without_an_api_server_is_unavailable_and_does_not_repeat_the_token(
    authority: Authority, work: Path
) -> None:
    kube = await kube_at("https://127.0.0.1:1", authority, work)
    try:
        with pytest.raises(KubernetesUnavailable) as raised:
            await kube.review_token("secret-token", [names.AGENT_AUDIENCE])
        assert "secret-token" not in str(raised.value)
    finally:
        await kube.close()


def agent(device: str, session: str) -> ConnectedAgent:
    return ConnectedAgent(device, "edge", device, session, True, False, True, "host", NOW)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def registry(told: list[str]) -> AgentRegistry:
    """One in which silence is 30 seconds."""
    made = AgentRegistry(30.0)
    made.add_handler(told.extend)
    return made


Register = Callable[[str, str, float], None]


@pytest.fixture
def register(registry: AgentRegistry) -> Register:
    return lambda device, session, now: registry.register(
        agent(device, session), Identity("edge", device, "p", "u"), now
    )


def test_heartbeats_keep_an_agent_and_silence_ends_it(
    registry: AgentRegistry, register: Register, told: list[str]
) -> None:
    register("a", "S1", 0.0)
    register("b", "S2", 0.0)
    assert registry.heartbeat("S1", 25.0) == "a"
    assert registry.expire(30.0) == []
    assert registry.expire(31.0) == ["b"]
    assert registry.heartbeat("S2", 31.0) is None
    assert registry.expire(55.0) == []
    assert registry.expire(56.0) == ["a"]
    assert told == ["a", "b", "b", "a"]


def test_a_session_speaks_for_one_device_and_a_device_has_one_session(
    registry: AgentRegistry, register: Register, told: list[str]
) -> None:
    register("a", "S1", 0.0)
    register("a", "S2", 1.0)
    assert registry.heartbeat("S1", 2.0) is None
    assert registry.heartbeat("S2", 2.0) == "a"
    told.clear()
    register("b", "S2", 3.0)
    assert registry.get("a") is None
    assert sorted(told) == ["a", "b"]
    registry.drop("S2")
    registry.drop("S1")
    assert len(registry) == 0


def test_registering_again_tells_once_and_counts_once(
    registry: AgentRegistry, register: Register, told: list[str]
) -> None:
    register("a", "S1", 0.0)
    register("a", "S1", 1.0)
    assert (told, len(registry)) == (["a", "a"], 1)
    registry.clear()
    registry.clear()
    assert (told, len(registry)) == (["a", "a", "a"], 0)
