"""The text protocol of userspace WireGuard: writes changes, reads devices, and speaks it over a Unix socket.

Described at https://www.wireguard.com/xplatform/. Keys are base64 on our side and hexadecimal on the wire.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from abbot.wireguard.device import Device, DeviceChange, PeerChange, PeerConfig, PeerTraffic
from edgefarm.errors import NetworkFailed

_TIMEOUT: Final = 10.0
_NO_KEY: Final = bytes(32).hex()
_NANO: Final = 1_000_000_000
_CREDENTIALS: Final = struct.Struct("3i")


def write_change(change: DeviceChange) -> str:
    """A `set` operation that makes this change."""
    lines = ["set=1"]
    if change.private_key is not None:
        lines.append(f"private_key={_hex(change.private_key)}")
    if change.listen_port is not None:
        lines.append(f"listen_port={change.listen_port}")
    if change.mark is not None:
        lines.append(f"fwmark={change.mark}")
    for peer in change.peers:
        lines += _peer_lines(peer)
    return "\n".join(lines) + "\n\n"


def read_device(answer: str) -> Device:
    """The device that an answer to a `get` operation describes."""
    sections = _sections(answer.splitlines())
    head = next(sections)
    peers: dict[str, PeerConfig] = {}
    traffic: dict[str, PeerTraffic] = {}
    for section in sections:
        one = dict(section)
        key = _base64(one["public_key"])
        peers[key] = PeerConfig(
            preshared_key=_base64(one.get("preshared_key", _NO_KEY)),
            endpoint=one.get("endpoint", ""),
            keepalive=int(one.get("persistent_keepalive_interval", 0)),
            allowed=tuple(value for name, value in section if name == "allowed_ip"),
        )
        handshake = int(one.get("last_handshake_time_sec", 0)) + int(one.get("last_handshake_time_nsec", 0)) / _NANO
        traffic[key] = PeerTraffic(handshake, int(one.get("rx_bytes", 0)), int(one.get("tx_bytes", 0)))
    values = dict(head)
    return Device(
        private_key=_base64(values.get("private_key", _NO_KEY)),
        listen_port=int(values.get("listen_port", 0)),
        mark=int(values.get("fwmark", 0)),
        peers=peers,
        traffic=traffic,
    )


def call(path: Path, pid: int, operation: str, name: str) -> str:
    """The answer to one operation from the process `pid`, which serves the interface `name` at the socket `path`.

    NetworkFailed when it cannot be asked or refuses; the error never repeats the operation.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            if _server(connection) != pid:
                raise NetworkFailed(f"interface {name}: another process serves {path}")
            connection.sendall(operation.encode())
            answer = _receive(connection)
    except OSError as error:
        raise NetworkFailed(f"interface {name}: its WireGuard process does not answer: {error}") from error
    body, _, status = answer.rstrip("\n").rpartition("errno=")
    if status != "0":
        code = abs(int(status)) if status.lstrip("-").isdigit() else errno.EPROTO
        raise NetworkFailed(f"interface {name}: its WireGuard process refused the configuration: {os.strerror(code)}")
    return body


def _peer_lines(peer: PeerChange) -> Iterator[str]:
    yield f"public_key={_hex(peer.public_key)}"
    if peer.remove:
        yield "remove=true"
        return
    if peer.preshared_key is not None:
        yield f"preshared_key={_hex(peer.preshared_key)}"
    if peer.endpoint:  # the protocol has no way to take one away
        yield f"endpoint={peer.endpoint}"
    if peer.keepalive is not None:
        yield f"persistent_keepalive_interval={peer.keepalive}"
    if peer.replace_allowed:
        yield "replace_allowed_ips=true"
    for prefix in peer.allowed:
        yield f"allowed_ip={prefix}"


def _sections(lines: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
    """The lines of the device and then of each peer, as names and values."""
    section: list[tuple[str, str]] = []
    for line in lines:
        name, separator, value = line.partition("=")
        if not separator:
            continue
        if name == "public_key":
            yield section
            section = []
        section.append((name, value))
    yield section


def _receive(connection: socket.socket) -> str:
    """An answer ends with an empty line."""
    data = bytearray()
    while not data.endswith(b"\n\n"):
        chunk = connection.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError("the connection was closed in the middle of an answer")
        data += chunk
    return data.decode()


def _server(connection: socket.socket) -> int:
    """The process that listens at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(data)[0]
    return pid


def _hex(key: str) -> str:
    return base64.b64decode(key).hex() if key else _NO_KEY


def _base64(key: str) -> str:
    return "" if key == _NO_KEY else base64.b64encode(bytes.fromhex(key)).decode()
