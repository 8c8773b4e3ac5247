"""The CNI plugin `abbot-cni`: a runtime's calls become requests to the abbot daemon, whose plugins do the work.

CNI specification 1.0.0 and 1.1.0. In a runtime's conflist it is, e.g., `{"type": "abbot-cni", "capabilities":
{"portMappings": true, "bandwidth": true, "dns": true}}`; the member `socket` is the daemon's where that is not the
default one.

The daemon knows a container by one id and gives it one interface: that of the runtime for `eth0`, and
`<id>.<interface>` for other interfaces of the same container. Its answer holds interfaces with their addresses;
gateways and routes of the result follow from the host's subnets, whose first address is the gateway.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from abbot.client import DEFAULT_SOCKET, DaemonUnreachable, RequestFailed, call
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import RequestBody, pack_request, unpack_response
from edgefarm.errors import InvalidMessage

VERSIONS: Final = ("1.0.0", "1.1.0")
HELP: Final = """\
usage: abbot-cni            (or: abbot cni)

A CNI plugin, which a container runtime runs with CNI_COMMAND and the other variables of the specification in the
environment and the network configuration on stdin. It hands the call to the abbot daemon. docs/mesh.md shows the
runtime's configuration.

Example of that:  {"type": "abbot-cni", "capabilities": {"portMappings": true, "bandwidth": true, "dns": true}}
"""
_MAIN_INTERFACE: Final = "eth0"
_MAX_CONFIG: Final = 4 * 1024 * 1024
#: Seconds. The daemon gives each plugin of a chain 20, and undoes what failed.
_CHANGE_SECONDS: Final = 110.0
_QUERY_SECONDS: Final = 60.0
_DEFAULT_ROUTES: Final = {4: "0.0.0.0/0", 6: "::/0"}

# Codes of the specification, "Error"; from 100 on they are a plugin's own.
_INCOMPATIBLE_VERSION: Final = 1
_INVALID_ENVIRONMENT: Final = 4
_UNDECODABLE: Final = 6
_INVALID_CONFIG: Final = 7
_TRY_AGAIN: Final = 11
_NOT_AVAILABLE: Final = 50
_FAILED: Final = 100
_CHANGED: Final = 101


class CniError(Exception):
    """What a runtime is told: the specification's error object."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        self.details = details
        super().__init__(message)


@dataclass(frozen=True)
class Call:
    """A runtime's call: its environment and the network configuration."""

    command: str
    container_id: str
    netns: str
    interface: str
    args: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def daemons_id(self) -> str:
        """By which the daemon knows the container."""
        return self.container_id if self.interface == _MAIN_INTERFACE else f"{self.container_id}.{self.interface}"

    @property
    def version(self) -> str:
        return str(self.config["cniVersion"])

    @property
    def runtime(self) -> Mapping[str, Any]:
        runtime: Mapping[str, Any] = self.config.get("runtimeConfig", {})
        return runtime

    def previous(self, name: str) -> list[dict[str, Any]]:
        """The objects of this member of prevResult."""
        objects = self.config.get("prevResult", {}).get(name) or []
        if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
            raise CniError(_INVALID_CONFIG, f"prevResult.{name} must be a list of objects")
        return list(objects)

    def ask(self, body: RequestBody, timeout: float) -> Any:
        """The body of the daemon's answer."""
        socket = self.config.get("socket", DEFAULT_SOCKET)
        return unpack_response(call(socket, pack_request(body), timeout=timeout))


def main() -> int:
    """Answer one call on stdout; the exit status. Runtimes give no arguments, people may."""
    match sys.argv[1:]:
        case ["--help" | "-h"]:
            sys.stdout.write(HELP)
            return 0
        case ["--version"]:
            from edgefarm import __version__

            sys.stdout.write(f"{__version__}\n")
            return 0
    version = VERSIONS[0]
    try:
        config = _read_config()
        version = _version(config)
        _check_members(config)
        answer = _answered(_call(os.environ, config))
    except CniError as error:
        answer = {"cniVersion": version, "code": error.code, "msg": str(error), "details": error.details}
        _write(answer)
        return 1
    if answer is not None:
        _write(answer)
    return 0


def _answered(request: Call) -> Mapping[str, Any] | None:
    try:
        return _answer(request)
    except CniError:
        raise
    except Exception as error:
        # Boundary of this process: a runtime reads JSON, and nothing from a traceback.
        raise CniError(_FAILED, "abbot-cni cannot work with this call", f"{type(error).__name__}: {error}") from error


def _answer(request: Call) -> Mapping[str, Any] | None:
    """What the specification wants on stdout for a call; None: nothing."""
    if request.command == "VERSION":
        return {"cniVersion": request.version, "supportedVersions": VERSIONS}
    if request.command == "GC":
        return None  # The daemon holds nothing for a container that it was told to delete.
    try:
        return _COMMANDS[request.command](request)
    except DaemonUnreachable as error:
        raise CniError(_NOT_AVAILABLE if request.command == "STATUS" else _TRY_AGAIN, str(error)) from error
    except RequestFailed as error:
        raise CniError(_FAILED, str(error)) from error
    except InvalidMessage as error:
        raise CniError(_FAILED, "the abbot daemon's answer cannot be read", str(error)) from error


def _add(request: Call) -> Mapping[str, Any]:
    try:
        body = pb.ContainerNetworkEnsureRequest(
            container_id=request.daemons_id,
            netns=request.netns,
            interface_name=request.interface,
            cap_args=_capabilities(request.runtime),
            cni_args=request.args,
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CniError(_INVALID_CONFIG, "runtimeConfig is not as CNI's conventions say", str(error)) from error
    status = request.ask(body, _CHANGE_SECONDS)
    return _result(request, status, request.ask(pb.ContainerNetworkConfigQueryRequest(), _QUERY_SECONDS))


def _delete(request: Call) -> None:
    body = pb.ContainerNetworkDeleteRequest(container_id=request.daemons_id, netns=request.netns)
    request.ask(body, _CHANGE_SECONDS)


def _check(request: Call) -> None:
    body = pb.ContainerNetworkQueryRequest(container_id=request.daemons_id, netns=request.netns)
    status = request.ask(body, _QUERY_SECONDS)
    if "prevResult" not in request.config:
        raise CniError(_INVALID_CONFIG, "CHECK needs prevResult")
    found = {address for interface in status.interfaces for address in interface.addresses}
    lost = _own_addresses(request) - found
    if lost:
        raise CniError(_CHANGED, f"container {request.container_id} has lost {', '.join(sorted(lost))}")


def _status(request: Call) -> None:
    config = request.ask(pb.ContainerNetworkConfigQueryRequest(), _QUERY_SECONDS)
    if not (config.ipv4_subnet or config.ipv6_subnet):
        raise CniError(
            _NOT_AVAILABLE,
            "this host has no subnets for containers yet; the controller tells them when the host's agent is connected",
        )


_COMMANDS: Final = {"ADD": _add, "DEL": _delete, "CHECK": _check, "STATUS": _status}


def _result(
    request: Call, status: pb.ContainerNetworkStatusResponse, host: pb.ContainerNetworkConfigResponse
) -> Mapping[str, Any]:
    """The CNI result: that of the plugins before us in the runtime's own chain, and ours."""
    interfaces, ips, routes = (request.previous(name) for name in ("interfaces", "ips", "routes"))
    subnets = {subnet for subnet in (host.ipv4_subnet, host.ipv6_subnet) if subnet}
    for interface in status.interfaces:
        for text in interface.addresses:
            address = ipaddress.ip_interface(text)
            ip: dict[str, Any] = {"address": text, "interface": len(interfaces)}
            if str(address.network) in subnets:
                ip["gateway"] = str(address.network[1])
                routes.append({"dst": _DEFAULT_ROUTES[address.version], "gw": ip["gateway"]})
            ips.append(ip)
        interfaces.append({"name": interface.name, "mac": interface.hardware_address, "sandbox": request.netns})
    dns = _dns(request, host)
    return {"cniVersion": request.version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns}


def _dns(request: Call, host: pb.ContainerNetworkConfigResponse) -> Mapping[str, Any]:
    """What the runtime asks for, else what its configuration says, else what the host's containers have."""
    asked = request.runtime.get("dns")
    if asked:
        return _resolver(asked.get("servers", ()), asked.get("searches", ()), asked.get("options", ()))
    return request.config.get("dns") or _resolver(host.dns.servers, host.dns.searches, host.dns.options)


def _resolver(servers: Sequence[str], searches: Sequence[str], options: Sequence[str]) -> Mapping[str, Any]:
    named = {"nameservers": list(servers), "search": list(searches), "options": list(options)}
    return {name: words for name, words in named.items() if words}


def _own_addresses(request: Call) -> set[str]:
    """The addresses that the result of ADD gave the container's interface."""
    names = dict(enumerate(interface.get("name") for interface in request.previous("interfaces")))
    return {
        str(ip.get("address"))
        for ip in request.previous("ips")
        if names.get(ip.get("interface", -1)) == request.interface
    }


def _capabilities(runtime: Mapping[str, Any]) -> Sequence[pb.CNICapArgs]:
    """CNI's runtimeConfig as abbot-proto has it."""
    given = [
        pb.CNICapArgs(
            port_map_arg=pb.CNICapArgs.PortMap(
                container_port=port["containerPort"],
                host_port=port["hostPort"],
                protocol=port.get("protocol", "tcp"),
                host_ip=port.get("hostIP", ""),
            )
        )
        for port in runtime.get("portMappings") or ()
    ]
    given += [
        pb.CNICapArgs(
            ip_range_arg=pb.CNICapArgs.IPRange(
                subnet=one["subnet"],
                range_start=one.get("rangeStart", ""),
                range_end=one.get("rangeEnd", ""),
                gateway=one.get("gateway", ""),
            )
        )
        for ranges in runtime.get("ipRanges") or ()
        for one in ranges
    ]
    if rates := runtime.get("bandwidth"):
        limits = {"ingress_rate": "ingressRate", "ingress_burst": "ingressBurst"}
        limits |= {"egress_rate": "egressRate", "egress_burst": "egressBurst"}
        values = {name: rates.get(member, 0) for name, member in limits.items()}
        given.append(pb.CNICapArgs(bandwidth_arg=pb.CNICapArgs.Bandwidth(**values)))
    if dns := runtime.get("dns"):
        given.append(pb.CNICapArgs(dns_config_arg=pb.CNICapArgs.DNSConfig(**dns)))
    if ips := runtime.get("ips"):
        given.append(pb.CNICapArgs(ip_addresses_arg=pb.CNICapArgs.IPAddresses(ips=ips)))
    if mac := runtime.get("mac"):
        given.append(pb.CNICapArgs(mac_address_arg=pb.CNICapArgs.MacAddress(mac=mac)))
    if guid := runtime.get("infinibandGUID"):
        given.append(pb.CNICapArgs(infiniband_guid_arg=pb.CNICapArgs.InfinibandGUID(infiniband_guid=guid)))
    if device := runtime.get("deviceID"):
        given.append(pb.CNICapArgs(device_id_arg=pb.CNICapArgs.DeviceID(device_id=device)))
    return given


def _read_config() -> Mapping[str, Any]:
    text = sys.stdin.buffer.read(_MAX_CONFIG + 1)
    if len(text) > _MAX_CONFIG:
        raise CniError(_UNDECODABLE, f"the network configuration has more than {_MAX_CONFIG} bytes")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CniError(_UNDECODABLE, "the network configuration on stdin is no JSON", str(error)) from error
    if not isinstance(config, dict):
        raise CniError(_UNDECODABLE, "the network configuration on stdin is no JSON object")
    return config


def _check_members(config: Mapping[str, Any]) -> None:
    members: Mapping[str, type] = {"runtimeConfig": dict, "prevResult": dict, "dns": dict, "socket": str}
    for name, kind in members.items():
        if name in config and not isinstance(config[name], kind):
            raise CniError(_INVALID_CONFIG, f"{name} must be {'a text' if kind is str else 'an object'}")


def _version(config: Mapping[str, Any]) -> str:
    version = config.get("cniVersion")
    if version not in VERSIONS:
        raise CniError(
            _INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not supported", f"write one of {', '.join(VERSIONS)}"
        )
    return str(version)


def _call(environment: Mapping[str, str], config: Mapping[str, Any]) -> Call:
    command = environment.get("CNI_COMMAND", "")
    needed = {
        "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
        "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
        "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    }
    if command not in (*_COMMANDS, "VERSION", "GC"):
        raise CniError(
            _INVALID_ENVIRONMENT,
            f"CNI_COMMAND {command!r} must be ADD, DEL, CHECK, GC, STATUS or VERSION",
            "abbot-cni is a CNI plugin: a container runtime calls it",
        )
    missing = [name for name in needed.get(command, ()) if not environment.get(name)]
    if missing:
        raise CniError(_INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)} in the environment")
    return Call(
        command=command,
        container_id=environment.get("CNI_CONTAINERID", ""),
        netns=environment.get("CNI_NETNS", ""),
        interface=environment.get("CNI_IFNAME", ""),
        args=_arguments(environment.get("CNI_ARGS", "")),
        config=config,
    )


def _arguments(text: str) -> Mapping[str, str]:
    """CNI_ARGS: `NAME=value;…`, less IgnoreUnknown, which the daemon sets by itself."""
    arguments = {}
    for pair in filter(None, text.split(";")):
        name, separator, value = pair.partition("=")
        if not name or not separator or "=" in value:
            raise CniError(_INVALID_ENVIRONMENT, "CNI_ARGS must be NAME=value pairs with `;` between them")
        arguments[name] = value
    arguments.pop("IgnoreUnknown", None)
    return arguments


def _write(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    sys.exit(main())
