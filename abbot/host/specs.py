"""An interface as it was asked for: checked, in normal form, and as it is stored. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from ipaddress import ip_interface
from typing import Any, Final, TypeAlias, TypeVar

from abbot.carrying import Carrier, key_bytes, probe_address
from abbot.netlink.values import MAIN_TABLE, PortSettings

#: WireGuard's own: what is left of 1500 bytes below IPv6 and its header.
WIREGUARD_MTU: Final = 1420


@dataclass(frozen=True)
class PeerSpec:
    """A peer as it was asked for; `always` is Use.ALWAYS, `keepalive` in seconds."""

    public_key: str
    preshared_key: str = field(default="", repr=False)
    endpoint: str = ""
    candidates: tuple[str, ...] = ()
    keepalive: int = 0
    allowed: tuple[str, ...] = ()
    always: bool = True

    @cached_property
    def encoded(self) -> str:
        """As JSON; kept, because a change of one peer writes the others again."""
        return json.dumps(
            [
                self.public_key,
                self.preshared_key,
                self.endpoint,
                self.candidates,
                self.keepalive,
                self.allowed,
                self.always,
            ]
        )

    @cached_property
    def probe(self) -> str:
        """Its probe address."""
        return probe_address(self.public_key)

    @cached_property
    def carrier(self) -> Carrier:
        """What counts for the choice of who carries a prefix."""
        return Carrier(self.public_key, self.allowed, self.always)

    @classmethod
    def decoded(cls, value: Any) -> PeerSpec:
        """From JSON; ValueError or TypeError when it is something else."""
        public_key, preshared_key, endpoint, candidates, keepalive, allowed, always = value
        return _checked(cls(public_key, preshared_key, endpoint, tuple(candidates), keepalive, tuple(allowed), always))


@dataclass(frozen=True)
class BridgeSpec:
    """A bridge. `ports` None: its ports keep the kernel's settings."""

    alias: str = ""
    tx_queue_len: int = 0
    promisc: bool = False
    ports: PortSettings | None = None


@dataclass(frozen=True)
class WireguardSpec:
    """A WireGuard interface; `own_key` says that its key was made here. `peers` by public key, in order."""

    public_key: str
    own_key: bool = True
    log_level: str = ""
    listen_port: int = 0
    routed: bool = False
    table: int = MAIN_TABLE
    firewall_mark: int = 0
    peers: Mapping[str, PeerSpec] = field(default_factory=dict)

    @property
    def mark(self) -> int:
        """On the device's own packets: as with `wg-quick`, a table of its own needs one, by default its number."""
        return self.firewall_mark or (self.table if self.routed and self.table != MAIN_TABLE else 0)


DriverSpec: TypeAlias = BridgeSpec | WireguardSpec
Stored = TypeVar("Stored", bound="PeerSpec | BridgeSpec | WireguardSpec | InterfaceSpec | PortSettings")


@dataclass(frozen=True)
class InterfaceSpec:
    """An interface of a provider. `mtu` 0: the driver's own; an empty hardware address: the kernel's."""

    name: str
    provider: str
    driver: DriverSpec
    mtu: int = 0
    hardware_address: str = ""
    addresses: tuple[str, ...] = ()
    delete_on_exit: bool = False

    @property
    def wireguard(self) -> WireguardSpec | None:
        """The driver, when it is WireGuard."""
        return self.driver if isinstance(self.driver, WireguardSpec) else None


def encode(spec: InterfaceSpec) -> str:
    """A specification as JSON. It holds preshared keys, but never the private key."""
    driver = spec.driver
    head: dict[str, Any] = {
        "name": spec.name,
        "provider": spec.provider,
        "mtu": spec.mtu,
        "hardwareAddress": spec.hardware_address,
        "addresses": spec.addresses,
        "deleteOnExit": spec.delete_on_exit,
    }
    if isinstance(driver, BridgeSpec):
        ports = vars(driver.ports) if driver.ports else None
        return json.dumps(head | {"bridge": {**vars(driver), "ports": ports}})
    settings = {name: value for name, value in vars(driver).items() if name != "peers"}
    peers = ",".join(peer.encoded for peer in driver.peers.values())
    return f'{json.dumps(head | {"wireguard": settings})[:-1]}, "peers": [{peers}]}}'


def decode(value: Any) -> InterfaceSpec:
    """From JSON; ValueError, TypeError, KeyError or InvalidMessage when it is something else than `encode` writes."""
    driver: DriverSpec
    if "bridge" in value:
        ports = value["bridge"]["ports"]
        driver = BridgeSpec(**{**value["bridge"], "ports": _checked(PortSettings(**ports)) if ports else None})
    else:
        peers = [PeerSpec.decoded(peer) for peer in value["peers"]]
        driver = WireguardSpec(**value["wireguard"], peers={peer.public_key: peer for peer in peers})
    _checked(driver)
    return _checked(
        InterfaceSpec(
            name=value["name"],
            provider=value["provider"],
            driver=driver,
            mtu=value["mtu"],
            hardware_address=value["hardwareAddress"],
            addresses=tuple(value["addresses"]),
            delete_on_exit=value["deleteOnExit"],
        )
    )


def _checked(spec: Stored) -> Stored:
    """The same; TypeError, ValueError or InvalidMessage when a field holds what it never can."""
    for one in fields(spec):
        value = getattr(spec, one.name)
        if one.name == "public_key":
            key_bytes(value)
        elif one.name in ("addresses", "allowed"):
            for text in value:
                ip_interface(text if isinstance(text, str) else "")
        elif one.name == "candidates":
            if not all(isinstance(text, str) for text in value):
                raise TypeError("a candidate is no text")
        elif one.name not in ("driver", "peers", "ports") and not isinstance(value, _kind(one)):
            raise TypeError(f"{one.name} is a {type(value).__name__}")
    return spec


def _kind(one: Field[Any]) -> type:
    """The type of a field of simple values, which is that of its default; those without one are texts."""
    return str if one.default is MISSING else type(one.default)
