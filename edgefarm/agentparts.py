"""Owns how requests to node agents and their answers travel: headers, and parts small enough for any NATS server.

Part of the contract in docs/mesh.md, section "Bus"; subjects and JSON are in `edgefarm.agentbus`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edgefarm import agentbus
from edgefarm.agentbus import Network, Status, check_identifier
from edgefarm.errors import InvalidMessage

#: Bytes of one part; nats-server accepts messages of 1 MiB unless it is told otherwise.
PART_BYTES: Final = 512 * 1024
#: Bytes of a whole request or answer.
MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_PARTS: Final = MAX_BYTES // PART_BYTES
#: Seconds that a request may take; what asks for more is a mistake.
MAX_TIMEOUT: Final = 3600.0
_PART = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")
_SECONDS = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,6})?")
_EXIT = re.compile(r"-?[0-9]{1,5}")

#: Header names and values, as nats-py gives and takes them.
Headers = Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """One message as it is published."""

    headers: dict[str, str]
    payload: bytes = field(repr=False)


@dataclass(frozen=True)
class Request:
    """Bytes for the network command of a host, of which nothing is known but whom they concern. `timeout` in seconds:
    what is not done by then is of no use any more."""

    id: str
    timeout: float
    network: Network
    data: bytes = field(repr=False)

    def messages(self) -> list[Message]:
        """What to publish, in order; InvalidMessage when it is too large."""
        headers = {
            agentbus.HEADER_ID: check_identifier(self.id),
            agentbus.HEADER_TIMEOUT: f"{self.timeout:.3f}",
            agentbus.HEADER_NETWORK: self.network.value,
        }
        return _messages(headers, self.data)


@dataclass(frozen=True)
class Answer:
    """What became of a request. `data` is the command's answer when `status` is DONE, else a text for a human (UTF-8);
    `exit_status` is the command's, negative for a signal, None where it did not end by itself or was never run."""

    status: Status
    data: bytes = field(repr=False)
    exit_status: int | None = None

    @property
    def text(self) -> str:
        """The text of an answer that is not DONE."""
        return self.data.decode(errors="replace")

    def messages(self) -> list[Message]:
        """What to publish, in order; InvalidMessage when it is too large."""
        headers = {agentbus.HEADER_STATUS: self.status.value}
        if self.exit_status is not None:
            headers[agentbus.HEADER_EXIT] = str(self.exit_status)
        return _messages(headers, self.data)


class Parts:
    """Puts one byte string together from its parts, in whatever order and how often they come."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._total: int | None = None
        self._parts: dict[int, bytes] = {}
        self.size = 0

    def add(self, headers: Headers, payload: bytes) -> bytes | None:
        """The whole when this was the last part that was missing, else None. A part that is here already is ignored.

        Raises InvalidMessage for a part that does not belong to the others, and when all of them are too much.
        """
        number, total = _read_part(headers)
        if self._total not in (None, total):
            raise InvalidMessage(f"Part {number}/{total} does not belong to the parts that came before.")
        self._total = total
        if number not in self._parts:
            self.size += len(payload)
            if self.size > self._max_bytes:
                raise InvalidMessage(f"The parts of the message are more than {self._max_bytes} bytes.")
            self._parts[number] = payload
        if len(self._parts) < total:
            return None
        return b"".join(self._parts[each] for each in range(1, total + 1))


class AnswerParts:
    """Puts the answer to one request together."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._parts = Parts(max_bytes)
        self._head: Answer | None = None

    def add(self, headers: Headers | None, payload: bytes) -> Answer | None:
        """The answer when it is complete, else None; InvalidMessage when the message can be no part of it."""
        headers = headers or {}
        head = _read_answer(headers)
        if self._head not in (None, head):
            raise InvalidMessage("The parts of the answer do not agree on its status.")
        self._head = head
        data = self._parts.add(headers, payload)
        return None if data is None else replace(head, data=data)


class RequestParts:
    """Puts requests together whose parts may be mixed. What it keeps is bounded: in bytes, and in time by `patience`
    seconds, after which the parts that have come are forgotten."""

    def __init__(self, max_bytes: int = MAX_BYTES, patience: float = 60.0) -> None:
        self._max_bytes = max_bytes
        self._patience = patience
        self._pending: dict[str, tuple[float, Request, Parts]] = {}

    def add(self, headers: Headers | None, payload: bytes, now: float) -> Request | None:
        """The request when it is complete, else None. `now` is any clock in seconds that never goes back.

        Raises InvalidMessage for what is no part of a request, and forgets the other parts of the same request.
        """
        headers = headers or {}
        head = _read_request(headers)
        for identifier in [name for name, (since, _, _) in self._pending.items() if now - since > self._patience]:
            del self._pending[identifier]
        # Taken out, and put back only when nothing was wrong and something is missing.
        since, first, parts = self._pending.pop(head.id, (now, head, Parts(self._max_bytes)))
        if first != head:
            raise InvalidMessage("The parts of the request do not agree on its timeout or network.")
        others = sum(pending.size for _, _, pending in self._pending.values())
        if others + parts.size + len(payload) > self._max_bytes:
            raise InvalidMessage(f"Incomplete requests are more than {self._max_bytes} bytes.")
        data = parts.add(headers, payload)
        if data is not None:
            return replace(head, data=data)
        self._pending[head.id] = (since, head, parts)
        return None


def _messages(headers: dict[str, str], data: bytes) -> list[Message]:
    if len(data) > MAX_BYTES:
        raise InvalidMessage(f"The message is {len(data)} bytes long; at most {MAX_BYTES} can be sent.")
    total = max(1, -(-len(data) // PART_BYTES))
    return [
        Message({**headers, agentbus.HEADER_PART: f"{index + 1}/{total}"}, data[index * PART_BYTES :][:PART_BYTES])
        for index in range(total)
    ]


def _read_part(headers: Headers) -> tuple[int, int]:
    match = _PART.fullmatch(headers.get(agentbus.HEADER_PART, ""))
    number, total = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= total <= _MAX_PARTS:
        raise InvalidMessage(f"The header {agentbus.HEADER_PART} must be like 1/3, with at most {_MAX_PARTS} parts.")
    return number, total


def _read_request(headers: Headers) -> Request:
    """A request without its bytes."""
    timeout = headers.get(agentbus.HEADER_TIMEOUT, "")
    seconds = float(timeout) if _SECONDS.fullmatch(timeout) else 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise InvalidMessage(f"The header {agentbus.HEADER_TIMEOUT} must be seconds, at most {MAX_TIMEOUT:g}.")
    try:
        network = Network(headers.get(agentbus.HEADER_NETWORK, ""))
    except ValueError:
        raise InvalidMessage(f"The header {agentbus.HEADER_NETWORK} must be host or container.") from None
    return Request(check_identifier(headers.get(agentbus.HEADER_ID, "")), seconds, network, b"")


def _read_answer(headers: Headers) -> Answer:
    """An answer without its bytes."""
    try:
        status = Status(headers.get(agentbus.HEADER_STATUS, ""))
    except ValueError:
        raise InvalidMessage(f"The header {agentbus.HEADER_STATUS} is none that is known.") from None
    exit_status = headers.get(agentbus.HEADER_EXIT)
    if exit_status is not None and not _EXIT.fullmatch(exit_status):
        raise InvalidMessage(f"The header {agentbus.HEADER_EXIT} must be a number.")
    return Answer(status, b"", None if exit_status is None else int(exit_status))
