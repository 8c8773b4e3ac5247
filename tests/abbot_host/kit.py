"""A host in a namespace: its HostNetwork, pictures of its network, and pings."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from abbot.host.keys import make_key, public_key
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage, NetworkFailed
from localcluster.netns import Namespace
from localcluster.process import LocalProcess

_ROOT = Path(__file__).parents[2]
#: Counters, times, numbers that the kernel gives, and what follows from traffic.
_UNSTEADY = frozenset({
    "ifindex", "stats", "stats64", "link_index", "bridge_id", "root_id", "designated_bridge", "designated_root",
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "hold_timer", "message_age_timer",
    "forward_delay_timer", "id", "config_pending", "topology_change_ack", "operstate", "port_id", "port_no",
    "num_queues", "designated_port", "no", "state",
})  # fmt: skip

#: Flags that tell whether there is a signal on the line, which takes the kernel a moment.
_CARRIER = ("NO-CARRIER", "LOWER_UP", "linkdown")
_PICTURES = ("link", "address", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule")


class Host:
    """A namespace with a driver in it, which can be killed and started again over the same data."""

    def __init__(self, space: Namespace, work: Path, backend: str = "auto", program: str = "wireguard-go") -> None:
        self.space = space
        self.data = work / f"{space.name}-data"
        self._socket = str(work / f"{space.name[-12:]}.sock")
        self._log = work / f"{space.name}.log"
        self._arguments = [backend, program]
        self._connection: socket.socket | None = None
        self.process: LocalProcess | None = None
        self.start()

    def start(self) -> None:
        """Start the driver; nothing is restored yet."""
        Path(self._socket).unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.abbot_host.driver", self._socket, str(self.data), *self._arguments]
        self.process = self.space.start("driver", ["env", f"PYTHONPATH={_ROOT}", *command], log=self._log)
        self.process.wait_until(self._connects, "listening", 30)

    def kill(self) -> None:
        """What kill -9 does to a daemon."""
        assert self.process is not None
        self.disconnect()
        self.process.signal(9)
        self.process.wait(10)

    def disconnect(self) -> None:
        if self._connection is not None:
            self._stream.close()
            self._connection.close()
            self._connection = None

    def call(self, name: str, **arguments: Any) -> Any:
        """The result of a command, or its error as the type that it had."""
        self._stream.write(json.dumps([name, arguments]) + "\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise ConnectionResetError("the driver has ended")
        answer = json.loads(line)
        if "error" in answer:
            kind = {"InvalidMessage": InvalidMessage}.get(answer["error"], NetworkFailed)
            raise kind(answer["message"])
        return answer["result"]

    def ensure(self, *interfaces: pb.HostNetworkInterface, provider: str = "mesh") -> list[pb.HostNetworkInterface]:
        request = pb.HostNetworkConfigEnsureRequest(provider=provider, expected=interfaces)
        body = base64.b64encode(request.SerializeToString()).decode()
        return list(_response(self.call("ensure", body=body)).actual)

    def problem(self, *interfaces: pb.HostNetworkInterface, provider: str = "mesh") -> str | None:
        """The sentence with which an ensure fails, None when it does not."""
        try:
            self.ensure(*interfaces, provider=provider)
        except (NetworkFailed, InvalidMessage) as error:
            return str(error)
        return None

    def set_static(self, *interfaces: pb.HostNetworkInterface) -> None:
        request = pb.HostNetworkConfigEnsureRequest(expected=interfaces)
        self.call("ensure", body=base64.b64encode(request.SerializeToString()).decode(), static=True)

    def query(self, *providers: str) -> dict[str, pb.HostNetworkInterface]:
        return {one.metadata.name: one for one in _response(self.call("query", providers=list(providers))).actual}

    def alive(self, interface: str, *keys: str) -> None:
        self.call("set_alive", interface=interface, alive=list(keys), rtts=dict.fromkeys(keys, 0.001))

    def picture(self) -> dict[str, Any]:
        """The whole network of the namespace, and the data folder, without what changes by itself."""
        script = "; echo @; ".join(f"ip -j -d {what}" for what in _PICTURES) + "; echo @; wg show all dump"
        *parts, dump = self.space.run(["sh", "-c", script]).split("@\n")
        seen = {what: _steady(json.loads(part or "[]")) for what, part in zip(_PICTURES, parts, strict=True)}
        for routes in ("-4 route show table all", "-6 route show table all"):
            seen[routes].sort(key=json.dumps)
        seen["wg"] = sorted(_wireguard(line) for line in dump.splitlines())
        seen["files"] = {
            str(path.relative_to(self.data)): path.read_text()
            for path in sorted(self.data.rglob("*"))
            if path.is_file()
        }
        seen["link"].sort(key=lambda link: link["ifname"])
        seen["address"].sort(key=lambda link: link["ifname"])
        return seen

    def allowed(self, interface: str) -> dict[str, set[str]]:
        """What the device lets each peer carry."""
        lines = self.space.run(["wg", "show", interface, "allowed-ips"]).splitlines()
        return {line.split("\t")[0]: set(line.split("\t")[1].split()) for line in lines}

    def _connects(self) -> bool:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        try:
            connection.connect(self._socket)
        except OSError:
            connection.close()
            return False
        self._connection = connection
        self._stream = connection.makefile("rw")
        return True


class Keys:
    """A key pair for a peer that lives elsewhere."""

    def __init__(self) -> None:
        self.private = make_key()
        self.public = public_key(self.private)


def tunnel(
    name: str = "wg0", *addresses: str, peers: tuple[pb.DriverWireguard.Peer, ...] = (), mtu: int = 0, **settings: Any
) -> pb.HostNetworkInterface:
    driver = pb.DriverWireguard(peers=peers, **settings)
    return pb.HostNetworkInterface(
        metadata=pb.NetworkInterface(name=name, addresses=addresses, mtu=mtu), wireguard=driver
    )


def bridge(name: str = "br0", *addresses: str, mtu: int = 0, mac: str = "", **settings: Any) -> pb.HostNetworkInterface:
    metadata = pb.NetworkInterface(name=name, addresses=addresses, mtu=mtu, hardware_address=mac)
    return pb.HostNetworkInterface(metadata=metadata, bridge=pb.DriverBridge(**settings))


def peer(key: str, *allowed: str, when_alive: bool = False, **settings: Any) -> pb.DriverWireguard.Peer:
    use = pb.DriverWireguard.Peer.WHEN_ALIVE if when_alive else pb.DriverWireguard.Peer.ALWAYS
    return pb.DriverWireguard.Peer(public_key=key, allowed_ips=allowed, use=use, **settings)


def ping(space: Namespace, address: str, *, interface: str = "", count: int = 1, interval: float = 0.2) -> int:
    """How many of `count` echo requests were answered."""
    command = [sys.executable, str(Path(__file__).with_name("echo.py")), address, interface, str(count), str(interval)]
    return int(space.run(command, timeout=60 + count * interval))


def differences(picture: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two pictures differ, one line for each thing that is in one only."""
    return [
        f"{sign} {what}: {line}"
        for what in picture
        for sign, one, two in (("-", picture, other), ("+", other, picture))
        for line in sorted(set(_lines(one[what])) - set(_lines(two[what])))
    ]


def _lines(part: Any) -> list[str]:
    return [json.dumps(one) for one in (part.items() if isinstance(part, dict) else part)]


def forget_reboot(host: Host) -> None:
    """A host that lost power: the daemon and all interfaces that it made are gone, the data is kept."""
    host.kill()
    for link in json.loads(host.space.ip("-j", "link")):
        if link["ifname"] not in ("lo", "eth0"):
            subprocess.run(
                [shutil.which("ip") or "ip", "-n", host.space.name, "link", "del", link["ifname"]], check=False
            )


def _response(body: str) -> pb.HostNetworkConfigResponse:
    return pb.HostNetworkConfigResponse.FromString(base64.b64decode(body))


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _steady(inner) for name, inner in value.items() if name not in _UNSTEADY}
    return [_steady(inner) for inner in value if inner not in _CARRIER] if isinstance(value, list) else value


def _wireguard(line: str) -> str:
    fields = line.split("\t")
    if len(fields) == 9:  # a peer: its handshake and traffic are what they are, its prefixes have no order
        fields[4] = ",".join(sorted(fields[4].split(",")))
        fields = fields[:5] + fields[8:]
    return "\t".join(fields)
