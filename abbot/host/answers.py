"""Puts interfaces as they are into abbot-proto's messages. Pure; no key but public ones gets into an answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from abbot.carrying import probe_address
from abbot.host.specs import BridgeSpec, InterfaceSpec, PeerSpec, WireguardSpec
from abbot.netlink.values import MAIN_TABLE, Address, Link, PortSettings
from abbot.wireguard.device import Device, PeerTraffic
from edgefarm.abbotproto import abbot_pb2 as pb

_MILLI: Final = 1000
_MICRO: Final = 1_000_000


@dataclass(frozen=True)
class Paths:
    """What is known of the ways to the peers, by public key: who is alive, who carries what, round trips in seconds."""

    alive: Collection[str]
    carrying: Mapping[str, tuple[str, ...]]
    rtts: Mapping[str, float]


def unmanaged(link: Link, addresses: Iterable[Address]) -> pb.HostNetworkInterface:
    """An interface that abbot does not manage."""
    return pb.HostNetworkInterface(metadata=_metadata(link, addresses), unknown=pb.DriverUnknown())


def bridge(
    spec: InterfaceSpec, driver: BridgeSpec, link: Link, addresses: Iterable[Address]
) -> pb.HostNetworkInterface:
    """A bridge as it is; how it treats its ports as it was asked for."""
    ports = driver.ports or PortSettings()
    return pb.HostNetworkInterface(
        metadata=_metadata(link, addresses, delete_on_exit=spec.delete_on_exit),
        provider=spec.provider,
        bridge=pb.DriverBridge(
            alias=link.alias,
            tx_queue_len=link.tx_queue_len,
            promisc=link.promisc,
            hairpin=ports.hairpin,
            guard=ports.guard,
            fastLeave=ports.fast_leave,
            root_block=ports.root_block,
            learning=ports.learning,
            flood=ports.flood,
            proxy_arp=ports.proxy_arp,
            proxy_arp_wifi=ports.proxy_arp_wifi,
        ),
    )


def wireguard(
    spec: InterfaceSpec, driver: WireguardSpec, link: Link, addresses: Iterable[Address]
) -> pb.HostNetworkInterface:
    """A tunnel without its peers and its port; its probe address is nobody's business."""
    own = probe_address(driver.public_key)
    shown = (address for address in addresses if address.text.partition("/")[0] != own)
    return pb.HostNetworkInterface(
        metadata=_metadata(link, shown, delete_on_exit=spec.delete_on_exit),
        provider=spec.provider,
        wireguard=pb.DriverWireguard(
            log_level=driver.log_level,
            public_key=driver.public_key,
            routing=pb.DriverWireguard.Routing(
                enabled=driver.routed,
                table=0 if driver.table == MAIN_TABLE else driver.table,
                firewall_mark=driver.firewall_mark,
            ),
        ),
    )


def add_peers(message: pb.DriverWireguard, peers: Iterable[PeerSpec], device: Device, paths: Paths) -> None:
    """Add these peers as they are on the device; their prefixes as they were asked for."""
    message.listen_port = device.listen_port
    nothing = PeerTraffic()
    for peer in peers:
        config = device.peers.get(peer.public_key)
        traffic = device.traffic.get(peer.public_key, nothing)
        message.peers.add(
            public_key=peer.public_key,
            endpoint=config.endpoint if config else "",
            persistent_keepalive_interval=peer.keepalive,
            allowed_ips=peer.allowed,
            use=pb.DriverWireguard.Peer.ALWAYS if peer.always else pb.DriverWireguard.Peer.WHEN_ALIVE,
            candidates=peer.candidates,
            last_handshake_ms=int(traffic.last_handshake * _MILLI),
            rx_bytes=traffic.rx,
            tx_bytes=traffic.tx,
            alive=peer.public_key in paths.alive,
            carrying=bool(paths.carrying.get(peer.public_key)),
            rtt_us=int(paths.rtts.get(peer.public_key, 0.0) * _MICRO),
        )


def _metadata(link: Link, addresses: Iterable[Address], *, delete_on_exit: bool = False) -> pb.NetworkInterface:
    return pb.NetworkInterface(
        name=link.name,
        mtu=link.mtu,
        hardware_address=link.hardware_address,
        addresses=[address.text for address in addresses],
        delete_on_exit=delete_on_exit,
    )
