"""Checks what is asked for and puts it into normal form, before anything is changed. Pure.

Errors are InvalidMessage; they name the interface and the field, and never repeat a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Network, ip_interface, ip_network
from typing import Final

from abbot.carrying import key_bytes
from abbot.host.keys import public_key
from abbot.host.specs import BridgeSpec, InterfaceSpec, PeerSpec, WireguardSpec
from abbot.netlink.values import LOCAL_TABLE, MAIN_TABLE, PortSettings
from abbot.wireguard.endpoints import normal_endpoint
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage

_LONGEST_NAME: Final = 15
_NAME: Final = re.compile(r"[!-.0-9;-~]+")  # what the kernel takes: no space, no '/', no ':'
_RESERVED: Final = frozenset({".", "..", "all", "default", "lo"})
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_PORT: Final = 65535
#: Below, an interface has no IPv6, and so no probe address.
_LOWEST_IPV6_MTU: Final = 1280
_LOWEST_MTU: Final = 68
_HIGHEST_MTU: Final = 65535
_LONGEST_ALIAS: Final = 255
_LINK_LOCAL: Final = IPv6Network("fe80::/10")
_LOG_LEVELS: Final = frozenset({"", "silent", "error", "warning", "info", "debug", "verbose"})
_MULTICAST_BIT: Final = 1
#: They are made one after the other, while nothing else is done for the host.
_MOST_INTERFACES: Final = 1000


@dataclass(frozen=True)
class Wanted:
    """An interface of a request. `private_key` empty: the device's own. `partial`: other peers than these stay.

    The public key of `spec` is empty where it is not known yet.
    """

    spec: InterfaceSpec
    private_key: str = field(default="", repr=False)
    partial: bool = False
    removed: tuple[str, ...] = ()


def check_request(provider: str, interfaces: Sequence[pb.HostNetworkInterface]) -> tuple[Wanted, ...]:
    """The interfaces that a provider asks for."""
    if not provider:
        raise InvalidMessage("the request names no provider: say who manages the interfaces")
    names: set[str] = set()
    for interface in interfaces:
        name = interface.metadata.name
        _check_name(name)
        if name in names:
            raise InvalidMessage(f"interface {name} is listed twice")
        names.add(name)
    if len(names) > _MOST_INTERFACES:
        raise InvalidMessage(f"the request lists {len(names)} interfaces: {_MOST_INTERFACES} is the most")
    return tuple(_interface(provider, interface) for interface in interfaces)


def _interface(provider: str, message: pb.HostNetworkInterface) -> Wanted:
    name = message.metadata.name
    if message.provider not in ("", provider):
        raise InvalidMessage(
            f"interface {name}: provider: {message.provider!r} differs from the request's {provider!r}"
        )
    kind = message.WhichOneof("config")
    if kind not in ("bridge", "wireguard"):
        raise InvalidMessage(f"interface {name}: config: choose bridge or wireguard")
    with _field(name, "addresses"):
        addresses = _unique(_address(text) for text in message.metadata.addresses)
    needs_ipv6 = kind == "wireguard" or any(":" in address for address in addresses)
    _check_mtu(name, message.metadata.mtu, _LOWEST_IPV6_MTU if needs_ipv6 else _LOWEST_MTU)
    wanted = _bridge(name, message.bridge) if kind == "bridge" else _wireguard(name, message.wireguard)
    mac = message.metadata.hardware_address.lower()
    if mac and kind == "wireguard":
        raise InvalidMessage(f"interface {name}: hardware_address: a WireGuard interface has none")
    if mac and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & _MULTICAST_BIT or mac == "00:00:00:00:00:00"):
        raise InvalidMessage(
            f"interface {name}: hardware_address: {mac!r} cannot be an interface's: write 02:00:00:00:00:01"
        )
    spec = InterfaceSpec(
        name=name,
        provider=provider,
        driver=wanted[0],
        mtu=message.metadata.mtu,
        hardware_address=mac,
        addresses=addresses,
        delete_on_exit=message.metadata.delete_on_exit,
    )
    if kind == "bridge":
        return Wanted(spec)
    return Wanted(spec, wanted[1], message.wireguard.partial, tuple(message.wireguard.removed_peers))


def _bridge(name: str, message: pb.DriverBridge) -> tuple[BridgeSpec, str]:
    if len(message.alias.encode()) > _LONGEST_ALIAS or "\0" in message.alias:
        raise InvalidMessage(f"interface {name}: alias: at most {_LONGEST_ALIAS} bytes, none of them 0")
    if message.tx_queue_len < 0:
        raise InvalidMessage(f"interface {name}: tx_queue_len: not a number of packets")
    ports = PortSettings(
        hairpin=message.hairpin,
        guard=message.guard,
        fast_leave=message.fastLeave,
        root_block=message.root_block,
        learning=message.learning,
        flood=message.flood,
        proxy_arp=message.proxy_arp,
        proxy_arp_wifi=message.proxy_arp_wifi,
    )
    chosen = ports if ports != PortSettings() else None
    return BridgeSpec(message.alias, message.tx_queue_len, message.promisc, chosen), ""


def _wireguard(name: str, message: pb.DriverWireguard) -> tuple[WireguardSpec, str]:
    own = ""
    if message.private_key:
        with _field(name, "private_key"):
            own = public_key(message.private_key)
    if not 0 <= message.listen_port <= _MAX_PORT:
        raise InvalidMessage(f"interface {name}: listen_port: write 0 (any) to {_MAX_PORT}")
    if message.log_level not in _LOG_LEVELS:
        raise InvalidMessage(f"interface {name}: log_level: write one of {', '.join(sorted(_LOG_LEVELS - {''}))}")
    table = message.routing.table or MAIN_TABLE
    if table < 0 or table == LOCAL_TABLE:
        raise InvalidMessage(f"interface {name}: routing.table: {table} is no table for routes")
    if message.routing.firewall_mark < 0:
        raise InvalidMessage(f"interface {name}: routing.firewall_mark: write 0 (none) or more")
    peers = [_peer(name, number, peer) for number, peer in enumerate(message.peers)]
    _check_peers(name, own, peers, message)
    if message.routing.enabled and table == MAIN_TABLE:
        _check_main_table(name, peers)
    spec = WireguardSpec(
        public_key=own,
        own_key=not message.private_key,
        log_level=message.log_level,
        listen_port=message.listen_port,
        routed=message.routing.enabled,
        table=table,
        firewall_mark=message.routing.firewall_mark,
        peers={peer.public_key: peer for peer in peers},
    )
    return spec, message.private_key


def _peer(name: str, number: int, message: pb.DriverWireguard.Peer) -> PeerSpec:
    where = f"peers[{number}]"
    with _field(name, f"{where}.public_key"):
        key_bytes(message.public_key)
    if message.pre_shared_key:
        with _field(name, f"{where}.pre_shared_key"):
            key_bytes(message.pre_shared_key)
    with _field(name, f"{where}.endpoint"):
        endpoint = normal_endpoint(message.endpoint) if message.endpoint else ""
    with _field(name, f"{where}.candidates"):
        candidates = _unique(normal_endpoint(candidate) for candidate in message.candidates)
    if not 0 <= message.persistent_keepalive_interval <= _MAX_PORT:
        raise InvalidMessage(
            f"interface {name}: {where}.persistent_keepalive_interval: write 0 (none) to 65535 seconds"
        )
    if message.use not in (pb.DriverWireguard.Peer.ALWAYS, pb.DriverWireguard.Peer.WHEN_ALIVE):
        raise InvalidMessage(f"interface {name}: {where}.use: unknown value {message.use}")
    with _field(name, f"{where}.allowed_ips"):
        allowed = _unique(_prefix(prefix) for prefix in message.allowed_ips)
    return PeerSpec(
        public_key=message.public_key,
        preshared_key=message.pre_shared_key,
        endpoint=endpoint,
        candidates=candidates,
        keepalive=message.persistent_keepalive_interval,
        allowed=allowed,
        always=message.use == pb.DriverWireguard.Peer.ALWAYS,
    )


def _check_peers(name: str, own: str, peers: Sequence[PeerSpec], message: pb.DriverWireguard) -> None:
    seen: set[str] = set()
    for number, peer in enumerate(peers):
        if peer.public_key in seen:
            raise InvalidMessage(f"interface {name}: peers[{number}].public_key: this peer is listed twice")
        check_no_self(name, number, peer, own)
        seen.add(peer.public_key)
    if message.removed_peers and not message.partial:
        raise InvalidMessage(f"interface {name}: removed_peers: only with partial; else list the peers that stay")
    for number, key in enumerate(message.removed_peers):
        with _field(name, f"removed_peers[{number}]"):
            key_bytes(key)
        if key in seen:
            raise InvalidMessage(f"interface {name}: removed_peers[{number}]: this peer is also in peers")


def check_no_self(name: str, number: int, peer: PeerSpec, own: str) -> None:
    """No peer may have the interface's own public key `own`."""
    if peer.public_key == own:
        raise InvalidMessage(f"interface {name}: peers[{number}].public_key: this is the interface's own key")


def _check_main_table(name: str, peers: Iterable[PeerSpec]) -> None:
    """A default route through the tunnel in the main table would also catch the tunnel's own packets."""
    for number, peer in enumerate(peers):
        for prefix in peer.allowed:
            if prefix.endswith("/0"):
                raise InvalidMessage(
                    f"interface {name}: peers[{number}].allowed_ips: {prefix} cannot be routed in the main table, the "
                    "tunnel's own packets would go into the tunnel: give routing.table a number of its own"
                )


def _check_name(name: str) -> None:
    if len(name.encode()) > _LONGEST_NAME or not _NAME.fullmatch(name) or name in _RESERVED or "%" in name:
        raise InvalidMessage(
            f"interface {name!r}: name: write 1 to {_LONGEST_NAME} printable ASCII characters without space, / : and %"
        )


def _check_mtu(name: str, mtu: int, lowest: int) -> None:
    if mtu and not lowest <= mtu <= _HIGHEST_MTU:
        raise InvalidMessage(f"interface {name}: mtu: write 0 (the driver's own) or {lowest} to {_HIGHEST_MTU} bytes")


def _address(text: str) -> str:
    if "/" not in text or "%" in text:
        raise InvalidMessage(f"{text!r} is no address with prefix length: write 10.0.0.1/24")
    try:
        address = ip_interface(text)
    except ValueError:
        raise InvalidMessage(f"{text!r} is no address with prefix length: write 10.0.0.1/24") from None
    if address.is_multicast or address.is_unspecified:
        raise InvalidMessage(f"{text!r} cannot be an interface's address")
    return f"{address.ip}/{address.network.prefixlen}"


def _prefix(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise InvalidMessage(f"{text!r} is no prefix: write 10.0.0.0/24") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_LINK_LOCAL):
        raise InvalidMessage(f"{text!r} is link-local: such addresses are for probes")
    return str(network)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


@contextmanager
def _field(name: str, field_name: str) -> Iterator[None]:
    """Say where it is what is wrong."""
    try:
        yield
    except InvalidMessage as error:
        raise InvalidMessage(f"interface {name}: {field_name}: {error}") from None
