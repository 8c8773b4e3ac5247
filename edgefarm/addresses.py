"""IP addresses, networks, endpoints and interface names as users write them, read strictly. Pure."""

from __future__ import annotations

import functools
import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

#: What Linux takes (15 bytes), without characters that would need care in shells and files.
INTERFACE_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*"
)
_PORT: Final = re.compile("[1-9][0-9]{0,4}")
_HIGHEST_PORT: Final = 65535


def parse_ipv4(text: str) -> IPv4Address:
    """An IPv4 address; ValueError says what to write."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise ValueError(f"{text!r} is not an IPv4 address: write for example 10.201.0.17") from None


def parse_ipv6(text: str) -> IPv6Address:
    """An IPv6 address without a zone; ValueError says what to write."""
    try:
        address = IPv6Address(text)
    except AddressValueError:
        address = None
    if address is None or address.scope_id:
        raise ValueError(f"{text!r} is not an IPv6 address: write for example fd00:201::17")
    return address


def parse_network(text: str) -> Network:
    """A network of either family in the form address/length; ValueError says what to write.

    Networks that no route through a tunnel may have are refused, too: all addresses (it would take the host's own
    traffic), loopback, link-local and multicast.
    """
    network = _plain_network(text)
    if network.prefixlen == 0:
        raise ValueError(f"{text!r} is all addresses: name the networks that are meant, for example 192.168.7.0/24")
    if network.is_loopback or network.is_link_local or network.is_multicast:
        raise ValueError(f"{text!r} cannot be routed: it is loopback, link-local or multicast")
    return network


def parse_ipv4_network(text: str) -> IPv4Network:
    """As `parse_network`, for IPv4 only."""
    network = parse_network(text)
    if not isinstance(network, IPv4Network):
        raise ValueError(f"{text!r} is not an IPv4 network: write for example 10.42.7.0/24")
    return network


def parse_ipv6_network(text: str) -> IPv6Network:
    """As `parse_network`, for IPv6 only."""
    network = parse_network(text)
    if not isinstance(network, IPv6Network):
        raise ValueError(f"{text!r} is not an IPv6 network: write for example fd00:42:7::/64")
    return network


def check_interface_name(text: str) -> str:
    """A name that Linux takes for an interface; ValueError says what to write."""
    if not re.fullmatch(INTERFACE_NAME, text):
        raise ValueError(
            f"{text!r} cannot name an interface: write 1 to 15 letters, digits, '_', '.' or '-', for example edgefarm0"
        )
    return text


def parse_endpoint(text: str) -> tuple[str, int]:
    """Host (an address without brackets, or a name) and port; ValueError says what to write."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not _PORT.fullmatch(port) or int(port) > _HIGHEST_PORT or not _is_host(host, bracketed=bracketed):
        raise ValueError(
            f"{text!r} is not an endpoint: write address:port, for example 203.0.113.7:51820, [2001:db8::7]:51820 or "
            "gateway.example:51820"
        )
    return (host[1:-1] if bracketed else host), int(port)


def check_endpoint(text: str) -> str:
    """The text itself, where `parse_endpoint` can read it."""
    parse_endpoint(text)
    return text


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks have an address in common."""
    return one.version == other.version and one.overlaps(other)


def inside(inner: Network, outer: Network) -> bool:
    """Whether `inner` lies in `outer` as a whole."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def endpoint(address: Address, port: int) -> str:
    """Address and port as one text."""
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


@functools.lru_cache(maxsize=16384)  # the same ones are read in every look at the mesh
def endpoint_address(text: str) -> Address | None:
    """The address in an endpoint; None where it is a name, empty or malformed."""
    try:
        return ip_address(parse_endpoint(text)[0])
    except ValueError:
        return None


def _plain_network(text: str) -> Network:
    try:
        interface = ip_interface(text) if re.fullmatch("[0-9A-Fa-f.:]+/[0-9]{1,3}", text) else None
    except ValueError:
        interface = None
    if interface is None:
        raise ValueError(f"{text!r} is not a network: write for example 10.42.7.0/24 or fd00:42:7::/64")
    network = interface.network
    if interface.ip != network.network_address:
        raise ValueError(f"{text!r} has bits set beyond its length: write {network}")
    return network


def _is_host(host: str, *, bracketed: bool) -> bool:
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        # Digits and dots alone are a mistyped address, not a name.
        return not bracketed and bool(_HOST_NAME.fullmatch(host)) and not re.fullmatch(r"[0-9.]+", host)
    return bracketed == isinstance(address, IPv6Address) and "%" not in host
