"""Decides whether a configuration may come into force: who runs the servers cannot change under the Networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import InvalidResource
from reconciler.configuration import DATA_KEY, Configuration, parse_configuration

#: The servers, each with its section of the configuration.
SECTIONS: Final = {names.VAULT_SERVER: "vault", names.NATS_SERVER: "nats"}
_NAMED_NETWORKS: Final = 3


@dataclass(frozen=True)
class Facts:
    """What the cluster tells about the configuration that was in force before this process began.

    `remembered`: the accepted one, as ConfigMap SERVERS_CA keeps it. `traces`: servers that the reconciler ran, by what
    they leave behind even where that ConfigMap is gone. `networks`: names of Networks that have an account. `ready`:
    servers that have been ready before, and `authorities`: by what they are trusted (PEM).
    """

    remembered: Configuration | None = None
    traces: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    ready: frozenset[str] = frozenset()
    authorities: str = ""


@dataclass(frozen=True)
class Verdict:
    """The configuration that is accepted (None: none yet), and why the wanted one is not. `ready` and `authorities` are
    those of the facts."""

    accepted: Configuration | None
    refusal: str = ""
    ready: frozenset[str] = frozenset()
    authorities: str = ""


def judge(wanted: Configuration, accepted: Configuration | None, facts: Facts) -> Verdict:
    """Accept `wanted`, unless it changes `deploy` of a server while Networks exist: their keys and accounts are there.

    `accepted` is what this process has accepted before.
    """
    before = accepted or facts.remembered
    deployed = facts.traces if before is None else before.deployed
    changed = sorted(wanted.deployed ^ deployed)
    known = Verdict(wanted, ready=facts.ready, authorities=facts.authorities)
    if not changed or not facts.networks:
        return known
    refusal = "; ".join(_sentence(server, server in deployed, facts.networks) for server in changed)
    return replace(known, accepted=before, refusal=refusal)


def recall_ready(configmap: Mapping[str, Any] | None) -> frozenset[str]:
    """The servers that were ready under it."""
    return frozenset(filter(None, _annotations(configmap).get(names.ANNOTATION_READY_SERVERS, "").split(",")))


def recall(configmap: Mapping[str, Any] | None, namespace: str) -> Configuration | None:
    """The configuration that ConfigMap SERVERS_CA remembers; None when it does not, or in no form of ours."""
    text = _annotations(configmap).get(names.ANNOTATION_ACCEPTED)
    try:
        return parse_configuration({DATA_KEY: text}, namespace) if text else None
    except InvalidResource:
        return None


def _annotations(configmap: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((configmap or {}).get("metadata") or {}).get("annotations") or {}


def _sentence(server: str, deployed: bool, networks: Collection[str]) -> str:
    named = ", ".join(sorted(networks)[:_NAMED_NETWORKS]) + (", …" if len(networks) > _NAMED_NETWORKS else "")
    return (
        f"{SECTIONS[server]}.deploy cannot be changed to {str(not deployed).lower()} while Networks exist ({named}), "
        f"whose keys and messages are in the present server: write {str(deployed).lower()}, or delete them first"
    )
