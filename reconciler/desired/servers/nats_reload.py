"""Decides how the hub's servers come to a changed configuration: by a reload, or by a restart one by one. Pure.

What counts is what the servers say: each carries the digest of its configuration as metadata, and tells when the
certificates of its listeners end. The authorities that routes are verified with are part of the digest, because they
are mounted beside the configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm.errors import InvalidCredential
from edgefarm.nats import jwt
from edgefarm.nats.subjects import covers
from edgefarm.nats.templates import SERVER_RELOAD, SERVERS_STATE, SERVERS_STREAMS
from reconciler.desired.servers.workload import template_digest
from reconciler.ports import HubServerState
from reconciler.status import find_condition

_NEEDED: Final = (SERVER_RELOAD, SERVERS_STATE, SERVERS_STREAMS)


@dataclass(frozen=True)
class Wanted:
    """What every server shall have loaded: a configuration, and a certificate that ends then."""

    config: str
    certificate_until: datetime

    @property
    def restart_mark(self) -> str:
        """What the pods are marked with when only a restart brings all of that about."""
        return f"{self.config}-{int(self.certificate_until.timestamp())}"


@dataclass(frozen=True)
class Servers:
    """The servers as they are: those that have not loaded what they shall (`behind`), and names of silent ones."""

    behind: tuple[HubServerState, ...]
    silent: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether all of them have."""
        return not self.behind and not self.silent


@dataclass(frozen=True)
class Pods:
    """The pods of the servers: names of those that are ready, and whether all are, and of the present template."""

    ready: tuple[str, ...]
    settled: bool


def observe(pods: Iterable[Mapping[str, Any]], expected: Sequence[str], *, template: str) -> Pods:
    """Judge the pods of these names; `template` is the digest of the StatefulSet's."""
    found = {pod["metadata"]["name"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    ready = [name for name in expected if name in found and _is_ready(found[name])]
    return Pods(tuple(ready), all(name in ready and template_digest(found[name]) == template for name in expected))


def compare(wanted: Wanted, states: Iterable[HubServerState], expected: Sequence[str]) -> Servers:
    """Judge what the servers of these names have said."""
    found = {state.name: state for state in states}
    return Servers(
        behind=tuple(found[name] for name in expected if name in found and not _has_loaded(found[name], wanted)),
        silent=tuple(name for name in expected if name not in found),
    )


def may_look_after_servers(system_account_jwt: str) -> bool:
    """Whether the system account lets the reconciler ask servers about themselves and reload them.

    Those of installations that earlier versions made do not: there only a restart brings a change about.
    """
    try:
        keys: Sequence[Any] = jwt.decode(system_account_jwt)["nats"]["signing_keys"]
    except (InvalidCredential, KeyError):
        return False
    return any(_allows(_published(key), _NEEDED) for key in keys if isinstance(key, Mapping))


def mark_for(current: str, wanted: Wanted) -> str:
    """The mark of pods that are to be started for `wanted`, unless they were."""
    return current if current.partition("~")[0] == wanted.restart_mark else wanted.restart_mark


def next_mark(current: str, wanted: Wanted) -> str:
    """The mark that restarts the pods for `wanted`, also when they bear one of it: started on an older mount."""
    mark, _, attempt = current.partition("~")
    return f"{mark}~{int(attempt or 1) + 1}" if mark == wanted.restart_mark else wanted.restart_mark


def _has_loaded(state: HubServerState, wanted: Wanted) -> bool:
    return state.config == wanted.config and state.certificates_until == {wanted.certificate_until}


def _is_ready(pod: Mapping[str, Any]) -> bool:
    ready = find_condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def _published(key: Mapping[str, Any]) -> Collection[str]:
    allowed: Collection[str] = ((key.get("template") or {}).get("pub") or {}).get("allow") or ()
    return allowed


def _allows(patterns: Collection[str], subjects: Iterable[str]) -> bool:
    return all(any(covers(pattern, subject) for pattern in patterns) for subject in subjects)
