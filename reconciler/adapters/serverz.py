"""Reads what a nats-server says about itself: its state (VARZ), its streams (JSZ), and whether it has reloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from edgefarm.errors import NatsRefused, NatsUnavailable, RestartNeeded
from edgefarm.nats.serverconfig import METADATA_DIGEST
from reconciler.ports import HubServerState

#: How the server begins when a change cannot be reloaded. It has one code for all errors, so its words must tell.
_NOT_RELOADABLE: Final = "config reload not supported"
#: Its words may hold whole JWTs.
_LONGEST_WORDS: Final = 200


def state_in(data: bytes) -> HubServerState:
    """The server that answered so."""
    try:
        answer = json.loads(data)
        body = answer["data"]
        metadata = body.get("metadata") or {}
        return HubServerState(
            id=str(answer["server"]["id"]),
            name=str(answer["server"]["name"]),
            config=str(metadata.get(METADATA_DIGEST, "")),
            certificates_until=frozenset(_certificates(body)),
            clustered=bool((body.get("cluster") or {}).get("name")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("itself") from error


def streams_in(data: bytes) -> int:
    """How many streams the server has which answered so."""
    try:
        return int(json.loads(data)["data"].get("streams", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("its streams") from error


def check_reloaded(data: bytes) -> None:
    """Raise what the server's answer to a reload means; nothing when it has read its configuration."""
    try:
        answer = json.loads(data)
        error = answer.get("error")
        name, words = answer["server"]["name"], "" if error is None else str(error.get("description", error))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable("a reload") from problem
    if error is None:
        return
    kind = RestartNeeded if words.startswith(_NOT_RELOADABLE) else NatsRefused
    said = " ".join(words.split())[:_LONGEST_WORDS]
    raise kind(f"{name} goes on with its old configuration: {said}")


def _certificates(body: Mapping[str, Any]) -> Iterator[datetime]:
    """When the certificates of the listeners for clients, leafs and routes end."""
    for listener in (body, body.get("leaf") or {}, body.get("cluster") or {}):
        text = listener.get("tls_cert_not_after")
        if text:
            yield datetime.fromisoformat(text)


def _unreadable(what: str) -> NatsUnavailable:
    return NatsUnavailable(f"A NATS server said something unreadable about {what}.")
