"""What abbot knows of an interface that it manages, and what it tells about a tunnel's peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from abbot.host.specs import InterfaceSpec, WireguardSpec
from abbot.wireguard.device import Device


@dataclass
class Managed:
    """An interface and what has come of it. Of a tunnel: `alive` are the public keys of its live peers, `carrying`
    what each peer carries now, `rtts` seconds by public key, `seen` the device when it was looked at last.
    """

    spec: InterfaceSpec
    alive: frozenset[str] = frozenset()
    rtts: Mapping[str, float] = field(default_factory=dict)
    carrying: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seen: Device = field(default_factory=Device)

    @property
    def tunnel(self) -> WireguardSpec:
        """The driver of an interface that is known to be a tunnel."""
        driver = self.spec.driver
        assert isinstance(driver, WireguardSpec)
        return driver


@dataclass(frozen=True)
class PeerState:
    """A peer of a tunnel as it is now; `endpoint` as asked for, `current_endpoint` in use, empty: none.

    `last_handshake` in Unix seconds, 0: never; `rx` and `tx` in bytes.
    """

    public_key: str
    probe_address: str
    endpoint: str
    candidates: tuple[str, ...]
    current_endpoint: str
    last_handshake: float
    rx: int
    tx: int


@dataclass(frozen=True)
class Tunnel:
    """A WireGuard interface, the address by which its peers probe this host, and its peers in the order asked for."""

    interface: str
    probe_address: str
    peers: tuple[PeerState, ...]
