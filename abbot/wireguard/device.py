"""What a WireGuard device is and can be told, whichever backend serves it. Pure.

Keys are base64, as in `wg`. Private and preshared keys are left out of every repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PeerConfig:
    """A peer as it is configured. An empty preshared key or endpoint: none. `keepalive` in seconds, 0: none."""

    preshared_key: str = field(default="", repr=False)
    endpoint: str = ""
    keepalive: int = 0
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class PeerTraffic:
    """What has happened with a peer: last handshake in Unix seconds (0: never), bytes received and sent."""

    last_handshake: float = 0.0
    rx: int = 0
    tx: int = 0


@dataclass(frozen=True)
class Device:
    """A device as it is; `peers` and `traffic` by public key. Mark and private key may be unset (0, empty)."""

    private_key: str = field(default="", repr=False)
    listen_port: int = 0
    mark: int = 0
    peers: Mapping[str, PeerConfig] = field(default_factory=dict)
    traffic: Mapping[str, PeerTraffic] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerChange:
    """What to change on one peer; None leaves it as it is, a peer that is not there is made.

    `allowed` is added to what it has, or takes its place with `replace_allowed`. A prefix that another peer has moves
    at once, without a moment in which nobody has it.
    """

    public_key: str
    remove: bool = False
    preshared_key: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    keepalive: int | None = None
    replace_allowed: bool = False
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceChange:
    """What to change on a device, the peers in this order; None leaves it as it is."""

    private_key: str | None = field(default=None, repr=False)
    listen_port: int | None = None
    mark: int | None = None
    peers: tuple[PeerChange, ...] = ()

    def __bool__(self) -> bool:
        return self != DeviceChange()
