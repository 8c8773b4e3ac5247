"""Owns what node agents and the reconciler say to each other over NATS: subjects, headers, parts, JSON. No connection.

docs/mesh.md, section "Bus", is the contract. Every message of an agent stands below `agent.<its nkey>.up`, every
message to it below `agent.<its nkey>.down`, so that permissions can bind an agent to its own key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, cast

from edgefarm.errors import InvalidCredential, InvalidMessage
from edgefarm.nats import nkeys

#: What the reconciler subscribes to: everything that agents say.
FROM_ALL_AGENTS: Final = "agent.*.up.>"

HEADER_ID: Final = "Edgefarm-Id"
HEADER_PART: Final = "Edgefarm-Part"
HEADER_TIMEOUT: Final = "Edgefarm-Timeout"
HEADER_NETWORK: Final = "Edgefarm-Network"
HEADER_STATUS: Final = "Edgefarm-Status"
HEADER_EXIT: Final = "Edgefarm-Exit"

#: The reason of a Denied that asks the agent to register again.
REASON_UNKNOWN: Final = "Unknown"

_VERSION: Final = 1
#: Bytes of a registration: a token, and a little beside it.
MAX_REGISTRATION: Final = 64 * 1024
_MAX_REPLY: Final = 16 * 1024
_MAX_TEXT: Final = 1024
_MAX_HEARTBEAT: Final = 3600
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: For each direction, what can be said, and whether an identifier follows.
_KINDS: Final[Mapping[str, Mapping[str, bool]]] = {
    "up": {"register": False, "heartbeat": False, "answer": True},
    "down": {"request": False, "reply": True},
}

Kind = Literal["register", "heartbeat", "answer", "request", "reply"]


class Network(StrEnum):
    """Which network a request is about: that of the host, or that of a container on it."""

    HOST = "host"
    CONTAINER = "container"


class Status(StrEnum):
    """What became of a request."""

    DONE = "done"
    #: The command ended with an error; the answer holds its words.
    FAILED = "failed"
    #: This host does not offer that: its network is not enabled, or it runs no containers.
    UNSUPPORTED = "unsupported"
    TIMEOUT = "timeout"
    TOO_LARGE = "too-large"
    #: Too many requests are under way; the same request may succeed later.
    BUSY = "busy"


@dataclass(frozen=True)
class Address:
    """What a subject says: whose it is (`nkey`), what it is for, and the identifier where there is one, else ""."""

    nkey: str
    kind: Kind
    id: str = ""


def register_subject(nkey: str) -> str:
    """Where an agent registers."""
    return f"agent.{nkey}.up.register"


def heartbeat_subject(nkey: str) -> str:
    """Where a registered agent says that it is still there."""
    return f"agent.{nkey}.up.heartbeat"


def answer_subject(nkey: str, identifier: str) -> str:
    """Where an agent answers the request of this identifier."""
    return f"agent.{nkey}.up.answer.{check_identifier(identifier)}"


def request_subject(nkey: str) -> str:
    """Where an agent takes requests."""
    return f"agent.{nkey}.down.request"


def reply_subject(nkey: str, identifier: str) -> str:
    """Where an agent is told what became of a registration or heartbeat."""
    return f"agent.{nkey}.down.reply.{check_identifier(identifier)}"


def to_agent(nkey: str) -> str:
    """What an agent subscribes to: everything that is said to it."""
    return f"agent.{nkey}.down.>"


def check_identifier(identifier: str) -> str:
    """Return it when it can be a token of a subject, else raise InvalidMessage."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise InvalidMessage("The identifier of a message must be 1 to 64 letters, digits, '-' or '_'.")
    return identifier


def parse_subject(subject: str) -> Address:
    """Take a subject apart; InvalidMessage when it is none of ours.

    The server lets an agent publish only below its own key, so the nkey of a received subject is proven. The *reply*
    subject of a message is not: an agent may write any, so one must be parsed and its nkey compared before it is used.
    """
    parts = subject.split(".")
    problem = InvalidMessage("The subject of the message is not one of the agents' bus.")
    if len(parts) not in (4, 5) or parts[0] != "agent":
        raise problem
    with_identifier = _KINDS.get(parts[2], {}).get(parts[3])
    if with_identifier is None or with_identifier != (len(parts) == 5):
        raise problem
    try:
        prefix, _ = nkeys.decode_public(parts[1])
    except InvalidCredential:
        raise problem from None
    if prefix is not nkeys.Prefix.USER:
        raise problem
    return Address(parts[1], cast(Kind, parts[3]), check_identifier(parts[4]) if with_identifier else "")


@dataclass(frozen=True)
class Registration:
    """How an agent introduces itself. `token` proves its service account and node; `new` is whether it is the first
    registration since the process started; `program` is name and version for humans."""

    token: str = field(repr=False)
    hostname: str
    program: str
    network: bool
    containers: bool
    new: bool

    def encode(self) -> bytes:
        """As JSON; a secret."""
        return _encode(
            {
                "version": _VERSION,
                "token": self.token,
                "hostname": self.hostname,
                "program": self.program,
                "network": self.network,
                "containers": self.containers,
                "new": self.new,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Registration:
        """Read it; InvalidMessage (without the token) when it is none. Unknown members are ignored."""
        members = _read_object(data, MAX_REGISTRATION, "registration")
        if members.get("version") != _VERSION:
            raise InvalidMessage(f"The registration's version must be {_VERSION}.")
        return cls(
            token=_text(members, "token", limit=MAX_REGISTRATION),
            hostname=_text(members, "hostname"),
            program=_text(members, "program"),
            network=_boolean(members, "network"),
            containers=_boolean(members, "containers"),
            new=_boolean(members, "new"),
        )


@dataclass(frozen=True)
class Accepted:
    """The agent speaks for `device` and sends a heartbeat every `heartbeat_seconds`."""

    device: str
    heartbeat_seconds: int

    def encode(self) -> bytes:
        """As JSON."""
        return _encode({"ok": True, "device": self.device, "heartbeatSeconds": self.heartbeat_seconds})


@dataclass(frozen=True)
class Denied:
    """Why not: a CamelCase `reason` and a sentence for a human. REASON_UNKNOWN: register again."""

    reason: str
    message: str

    def encode(self) -> bytes:
        """As JSON; the message in one line, and cut where it is too long to be read anyway."""
        message = " ".join(self.message.split())[:_MAX_TEXT]
        return _encode({"ok": False, "reason": self.reason, "message": message})


#: What the reconciler says to a registration or a heartbeat.
Reply = Accepted | Denied


def decode_reply(data: bytes) -> Reply:
    """Read a reply; InvalidMessage when it is none."""
    members = _read_object(data, _MAX_REPLY, "reply")
    if not _boolean(members, "ok"):
        return Denied(_text(members, "reason"), _text(members, "message"))
    seconds = members.get("heartbeatSeconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= _MAX_HEARTBEAT:
        raise InvalidMessage(f"The member heartbeatSeconds must be a whole number from 1 to {_MAX_HEARTBEAT}.")
    return Accepted(_text(members, "device"), seconds)


def _encode(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()


def _read_object(data: bytes, limit: int, what: str) -> dict[str, Any]:
    if len(data) > limit:
        raise InvalidMessage(f"The {what} is {len(data)} bytes long; at most {limit} are read.")
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidMessage(f"The {what} is not JSON.") from None
    if not isinstance(members, dict):
        raise InvalidMessage(f"The {what} is not a JSON object.")
    return members


def _text(members: Mapping[str, Any], name: str, *, limit: int = _MAX_TEXT) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise InvalidMessage(f"The member {name} must be 1 to {limit} printable characters.")
    return value


def _boolean(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name)
    if not isinstance(value, bool):
        raise InvalidMessage(f"The member {name} must be true or false.")
    return value
