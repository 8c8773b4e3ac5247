"""Speaks to the kernel's WireGuard over generic netlink."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from pyroute2 import WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from abbot.netlink.values import KernelRefused
from abbot.wireguard.device import Device, DeviceChange, PeerChange, PeerConfig, PeerTraffic

#: 32 zero bytes: how the kernel says, and is told, that there is no key.
_NO_KEY: Final = "A" * 43 + "="
_NANO: Final = 1_000_000_000


class KernelWireguard:
    """WireGuard devices of the kernel, by interface name; KernelRefused when the kernel says no."""

    def get(self, name: str) -> Device:
        """The device as it is now."""
        try:
            with WireGuard() as wireguard:
                return read_device(wireguard.info(name))
        except (NetlinkError, OSError) as error:
            raise _refused(name, "read", error) from error

    def change(self, name: str, change: DeviceChange) -> None:
        """Change the device, then one peer after the other."""
        try:
            with WireGuard() as wireguard:
                wireguard.set(name, listen_port=change.listen_port, fwmark=change.mark, private_key=change.private_key)
                for peer in change.peers:
                    wireguard.set(name, peer=peer_arguments(peer))
        except (NetlinkError, OSError) as error:
            raise _refused(name, "configure", error) from error


def peer_arguments(peer: PeerChange) -> dict[str, Any]:
    """What pyroute2 wants to know of a peer's change."""
    if peer.remove:
        return {"public_key": peer.public_key, "remove": True}
    arguments: dict[str, Any] = {"public_key": peer.public_key, "replace_allowed_ips": peer.replace_allowed}
    if peer.preshared_key is not None:
        arguments["preshared_key"] = peer.preshared_key or _NO_KEY
    if peer.endpoint:
        host, _, port = peer.endpoint.rpartition(":")
        arguments |= {"endpoint_addr": host.strip("[]"), "endpoint_port": int(port)}
    if peer.keepalive is not None:
        arguments["persistent_keepalive"] = peer.keepalive
    if peer.allowed:
        arguments["allowed_ips"] = list(peer.allowed)
    return arguments


def read_device(messages: Iterable[Any]) -> Device:
    """The device that the messages of a dump describe; a peer with many prefixes goes on in the next message."""
    private_key, port, mark = "", 0, 0
    peers: dict[str, PeerConfig] = {}
    traffic: dict[str, PeerTraffic] = {}
    for message in messages:
        private_key = _key(message.get_attr("WGDEVICE_A_PRIVATE_KEY")) or private_key
        port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or port
        mark = message.get_attr("WGDEVICE_A_FWMARK") or mark
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            key = _key(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
            allowed = tuple(entry["addr"] for entry in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())
            known = peers.get(key)
            if known is not None:
                allowed = known.allowed + allowed
            peers[key] = PeerConfig(
                preshared_key=_key(peer.get_attr("WGPEER_A_PRESHARED_KEY")) or (known.preshared_key if known else ""),
                endpoint=_endpoint(peer.get_attr("WGPEER_A_ENDPOINT")) or (known.endpoint if known else ""),
                keepalive=peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or (known.keepalive if known else 0),
                allowed=allowed,
            )
            if known is None:
                traffic[key] = _traffic(peer)
    return Device(private_key, port, mark, peers, traffic)


def _traffic(peer: Any) -> PeerTraffic:
    time = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
    return PeerTraffic(
        last_handshake=time["tv_sec"] + time["tv_nsec"] / _NANO if time else 0.0,
        rx=peer.get_attr("WGPEER_A_RX_BYTES") or 0,
        tx=peer.get_attr("WGPEER_A_TX_BYTES") or 0,
    )


def _key(attribute: bytes | None) -> str:
    """pyroute2 has keys in base64; one of zeros is none."""
    key = attribute.decode() if attribute else ""
    return "" if key == _NO_KEY else key


def _endpoint(attribute: Any) -> str:
    if not attribute:
        return ""
    host = attribute["addr"]
    return f"[{host}]:{attribute['port']}" if ":" in host else f"{host}:{attribute['port']}"


def _refused(name: str, what: str, error: NetlinkError | OSError) -> KernelRefused:
    # Not the error's own words: they may repeat what was sent.
    code = (error.errno if isinstance(error, OSError) else error.code) or 0
    return KernelRefused(f"interface {name}: cannot {what} the kernel's WireGuard: {os.strerror(code)}", code)
