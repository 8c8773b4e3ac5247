"""NATS' client protocol by hand over a blocking socket: as little work per message as there can be."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final, Self

from edgefarm.nats import nkeys

BUFFER: Final = 1 << 18
#: Seconds that any answer may take; what takes longer is broken.
PATIENCE: Final = 20.0


@dataclass(frozen=True)
class Login:
    """Who a client is: a JWT with its seed, a name with its password, or nobody."""

    token: str = ""
    seed: str = ""
    user: str = ""
    password: str = ""

    def claims(self, nonce: str) -> dict[str, str]:
        """What CONNECT says about it."""
        if self.token:
            signature = base64.urlsafe_b64encode(nkeys.sign(self.seed, nonce.encode())).rstrip(b"=").decode()
            return {"jwt": self.token, "sig": signature}
        return {"user": self.user, "pass": self.password} if self.user else {}


@dataclass(frozen=True)
class Target:
    """A server on loopback; without `ca` (PEM) the connection is not encrypted."""

    port: int
    ca: str = ""
    login: Login = Login()


class Wire:
    """A connection that has logged in; a context manager. Protocol 0, so that the server sends nothing unasked but
    PING, which is left unanswered: no run is as long as the server's patience."""

    def __init__(self, target: Target) -> None:
        plain = socket.create_connection(("127.0.0.1", target.port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket = plain
        info: dict[str, Any] = json.loads(self.until(b"\r\n").removeprefix(b"INFO "))
        if target.ca:
            context = ssl.create_default_context(cadata=target.ca)
            self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        options = {"verbose": False, "pedantic": False, "protocol": 0, "headers": False, "name": "bench"}
        options |= target.login.claims(info.get("nonce", ""))
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def subscribe(self, subject: str) -> None:
        """Subscribe, and return when the server knows."""
        self.send(f"SUB {subject} 1\r\n".encode())
        self.settle()

    def settle(self) -> None:
        """Return when the server has worked off what was sent; RuntimeError says what it refuses."""
        self.send(b"PING\r\n")
        self.until(b"PONG\r\n")

    def until(self, end: bytes) -> bytes:
        """Read up to `end`, which must be the last thing to come."""
        data = b""
        while not data.endswith(end):
            more = self.socket.recv(BUFFER)
            data += more
            if not more or b"-ERR" in data:
                raise RuntimeError(f"the server says {data.decode(errors='replace').strip() or 'nothing more'}")
        return data


class Api(Wire):
    """JetStream's API as a client that asks one thing after the other."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.subscribe("_INBOX.api.*")
        self._lines = self.socket.makefile("rb")
        self._asked = 0

    def request(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer; RuntimeError when it is an error."""
        self._asked += 1
        reply, payload = f"_INBOX.api.{self._asked}", b"" if body is None else json.dumps(body).encode()
        self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")
        while True:
            words = self._lines.readline().decode().split()
            if not words or words[0] == "-ERR":
                raise RuntimeError(f"{subject}: {' '.join(words) or 'the server has ended the connection'}")
            if words[0] == "PING":
                self.send(b"PONG\r\n")
            if words[0] == "MSG":
                answer: dict[str, Any] = json.loads(self._lines.read(int(words[-1]) + 2))
                if words[1] != reply:  # of an earlier request that was given up
                    continue
                if "error" in answer:
                    raise RuntimeError(f"{subject}: {answer['error']['description']}")
                return answer

    def config(self, stream: str, domain: str = "main") -> dict[str, Any]:
        """The configuration of a stream."""
        found: dict[str, Any] = self.request(f"$JS.{domain}.API.STREAM.INFO.{stream}")["config"]
        return found

    def messages(self, stream: str, domain: str = "main") -> int:
        """How many messages a stream has stored."""
        return int(self.request(f"$JS.{domain}.API.STREAM.INFO.{stream}")["state"]["messages"])
