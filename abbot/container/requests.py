"""What the requests of abbot-proto ask of a container's network, checked and put into values. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage

DEFAULT_INTERFACE: Final = "eth0"

# CNI specification, "Execution Protocol"; shorter than a file name may be, since records are named by it.
_CONTAINER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_ARGUMENT_NAME: Final = re.compile(r"[A-Za-z0-9_./-]{1,253}")
_ARGUMENT_VALUE: Final = re.compile(r"[^;=\x00-\x1f\x7f]{0,4096}")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_GUID: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){7}")
_DEVICE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_WORD: Final = re.compile(r"[\x21-\x7e]{1,253}")
_PORTS: Final = range(1, 65536)
_PROTOCOLS: Final = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Dns:
    """What containers shall have in their resolver configuration."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.servers or self.searches or self.options)


@dataclass(frozen=True)
class Arguments:
    """What a container's network is asked to have, as plugins get it.

    `runtime` is CNI's runtimeConfig: capability -> value; `cni` are the names and values of CNI_ARGS.
    """

    runtime: Mapping[str, Any] = field(default_factory=dict)
    cni: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.runtime or self.cni)


@dataclass(frozen=True)
class NetworkConfig:
    """The subnets of a host's containers; without any, it has no container network."""

    ipv4: str = ""
    ipv6: str = ""
    dns: Dns = field(default_factory=Dns)

    @property
    def subnets(self) -> tuple[str, ...]:
        return tuple(subnet for subnet in (self.ipv4, self.ipv6) if subnet)


class _Placed(Protocol):
    """Any request about one container."""

    @property
    def container_id(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def netns(self) -> str: ...


def container_id(request: _Placed) -> str:
    """The container that a request is about; InvalidMessage for a name that CNI does not permit."""
    if not _CONTAINER_ID.fullmatch(request.container_id):
        raise InvalidMessage(
            f"container_id {request.container_id[:80]!r} must be 1 to 200 letters, digits, `_`, `.` or `-`, and begin"
            " with a letter or digit"
        )
    return request.container_id


def namespace_path(request: _Placed) -> str:
    """The path of the container's network namespace; "" where the request names none."""
    if request.netns:
        if not request.netns.startswith("/") or "\x00" in request.netns:
            raise InvalidMessage(f"netns {request.netns[:80]!r} must be an absolute path")
        return request.netns
    return f"/proc/{request.pid}/ns/net" if request.pid else ""


def interface_name(request: pb.ContainerNetworkEnsureRequest) -> str:
    """The name of the interface in the container."""
    name = request.interface_name or DEFAULT_INTERFACE
    if not _INTERFACE.fullmatch(name):
        raise InvalidMessage(f"interface_name {name[:80]!r} must be 1 to 15 letters, digits, `_`, `.`, `@` or `-`")
    return name


def arguments(request: pb.ContainerNetworkEnsureRequest) -> Arguments:
    """The capability and CNI arguments of a request; InvalidMessage names what is wrong."""
    return Arguments(_runtime_config(request.cap_args), _cni_args(request.cni_args))


def network_config(request: pb.ContainerNetworkConfigEnsureRequest) -> NetworkConfig:
    """The subnets and DNS of a request; InvalidMessage names what is wrong."""
    return NetworkConfig(
        ipv4=_subnet("ipv4_subnet", request.ipv4_subnet, 4) if request.ipv4_subnet else "",
        ipv6=_subnet("ipv6_subnet", request.ipv6_subnet, 6) if request.ipv6_subnet else "",
        dns=_dns(request.dns),
    )


def _subnet(name: str, text: str, version: int) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidMessage(f"{name} {text[:80]!r} is no network: {error}") from None
    if network.version != version:
        raise InvalidMessage(f"{name} {text!r} must be an IPv{version} network")
    if network.num_addresses < 4:
        raise InvalidMessage(f"{name} {text!r} has no room for the gateway and a container")
    return str(network)


def _runtime_config(options: Sequence[pb.CNICapArgs]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    ranges: dict[int, list[dict[str, str]]] = {}
    for option in options:
        kind = option.WhichOneof("option")
        if kind is None:
            raise InvalidMessage("a capability argument is empty, or of a kind that this abbot does not know")
        if kind == "port_map_arg":
            config.setdefault("portMappings", []).append(_port_mapping(option.port_map_arg))
        elif kind == "ip_addresses_arg":
            config.setdefault("ips", []).extend(_interface_address(ip) for ip in option.ip_addresses_arg.ips)
        elif kind == "ip_range_arg":
            family, value = _ip_range(option.ip_range_arg)
            ranges.setdefault(family, []).append(value)
        else:
            name, single = _single(option, kind)
            if config.setdefault(name, single) != single:
                raise InvalidMessage(f"the capability {name} is asked for twice, with different values")
    if ranges:
        # A range set gives one address: several ranges of a family are alternatives.
        config["ipRanges"] = list(ranges.values())
    _refuse_twice_mapped(config.get("portMappings", ()))
    return {name: value for name, value in config.items() if value}


def _single(option: pb.CNICapArgs, kind: str) -> tuple[str, Any]:
    """Name and value of a capability that a container has once."""
    if kind == "bandwidth_arg":
        return "bandwidth", _bandwidth(option.bandwidth_arg)
    if kind == "dns_config_arg":
        dns = _dns(option.dns_config_arg)
        value = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
        return "dns", value if dns else {}
    if kind == "mac_address_arg":
        return "mac", _matching("mac", option.mac_address_arg.mac, _MAC, "six bytes in hex, e.g. 02:42:ac:11:00:02")
    if kind == "infiniband_guid_arg":
        guid = option.infiniband_guid_arg.infiniband_guid
        return "infinibandGUID", _matching("infiniband_guid", guid, _GUID, "eight bytes in hex with `:` between them")
    device = option.device_id_arg.device_id
    return "deviceID", _matching("device_id", device, _DEVICE, "up to 256 visible characters, e.g. 0000:03:00.0")


def _port_mapping(mapping: pb.CNICapArgs.PortMap) -> dict[str, Any]:
    protocol = mapping.protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidMessage(f"protocol {mapping.protocol[:40]!r} of a port must be tcp, udp or sctp")
    if mapping.host_port not in _PORTS:
        raise InvalidMessage(
            f"host_port {mapping.host_port} for container port {mapping.container_port}/{protocol} must be 1 to 65535:"
            " leave the mapping out, or choose a port of the host"
        )
    if mapping.container_port not in _PORTS:
        raise InvalidMessage(f"container_port {mapping.container_port} must be 1 to 65535")
    value = {"hostPort": mapping.host_port, "containerPort": mapping.container_port, "protocol": protocol}
    if mapping.host_ip:
        value["hostIP"] = _address("host_ip", mapping.host_ip)
    return value


def _refuse_twice_mapped(mappings: Sequence[Mapping[str, Any]]) -> None:
    for position, mapping in enumerate(mappings):
        if any(same_host_port(mapping, other) for other in mappings[:position]):
            raise InvalidMessage(f"host port {mapping['hostPort']}/{mapping['protocol']} is asked for twice")


def same_host_port(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two port mappings want the same port of the host; no address, and 0.0.0.0 or ::, mean all addresses."""
    if (one["hostPort"], one["protocol"]) != (other["hostPort"], other["protocol"]):
        return False
    first, second = (ipaddress.ip_address(mapping.get("hostIP", "0.0.0.0")) for mapping in (one, other))  # noqa: S104
    return first == second or first.is_unspecified or second.is_unspecified


def _bandwidth(bandwidth: pb.CNICapArgs.Bandwidth) -> dict[str, int]:
    values = {
        "ingressRate": bandwidth.ingress_rate,
        "ingressBurst": bandwidth.ingress_burst,
        "egressRate": bandwidth.egress_rate,
        "egressBurst": bandwidth.egress_burst,
    }
    if min(values.values()) < 0:
        raise InvalidMessage("rates and bursts of a bandwidth must not be negative")
    for direction in ("ingress", "egress"):
        if bool(values[f"{direction}Rate"]) != bool(values[f"{direction}Burst"]):
            raise InvalidMessage(f"a bandwidth needs both {direction}_rate and {direction}_burst, or neither")
    return values if any(values.values()) else {}


def _ip_range(wanted: pb.CNICapArgs.IPRange) -> tuple[int, dict[str, str]]:
    try:
        subnet = ipaddress.ip_network(wanted.subnet)
    except ValueError as error:
        raise InvalidMessage(f"subnet {wanted.subnet[:80]!r} of an ip range is no network: {error}") from None
    value = {"subnet": str(subnet)}
    ends = {"rangeStart": wanted.range_start, "rangeEnd": wanted.range_end, "gateway": wanted.gateway}
    for name, text in ends.items():
        if text:
            value[name] = _address(f"{name} of an ip range", text)
            if ipaddress.ip_address(value[name]) not in subnet:
                raise InvalidMessage(f"{name} {value[name]} of an ip range lies outside its subnet {subnet}")
    return subnet.version, value


def _dns(dns: pb.CNICapArgs.DNSConfig) -> Dns:
    words: Iterable[tuple[str, str]] = [
        *(("searches", word) for word in dns.searches),
        *(("options", word) for word in dns.options),
    ]
    for name, word in words:
        _matching(f"dns {name}", word, _WORD, "visible characters without a space")
    return Dns(
        tuple(_address("dns server", server) for server in dns.servers),
        tuple(dns.searches),
        tuple(dns.options),
    )


def _cni_args(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _ARGUMENT_NAME.fullmatch(name):
            raise InvalidMessage(f"cni_args: the name {name[:80]!r} must be of letters, digits, `_`, `.`, `/` or `-`")
        if not _ARGUMENT_VALUE.fullmatch(value):
            raise InvalidMessage(f"cni_args: the value of {name!r} must not hold `;`, `=` or control characters")
    return dict(sorted(given.items()))


def _address(name: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidMessage(f"{name} {text[:80]!r} is no IP address") from None


def _interface_address(text: str) -> str:
    """An address that a container shall have; its prefix length may be left out."""
    try:
        return str(ipaddress.ip_interface(text)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidMessage(f"ips: {text[:80]!r} is no IP address") from None


def _matching(name: str, text: str, pattern: re.Pattern[str], form: str) -> str:
    if not pattern.fullmatch(text):
        raise InvalidMessage(f"{name} {text[:80]!r} must be {form}")
    return text
