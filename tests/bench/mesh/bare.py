"""The peer of every comparison: wireguard-go and `wg` alone, in the same namespaces as the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localcluster.demo.mesh.topology import EDGES, GATEWAYS, Topology
from localcluster.netns import Namespace
from localcluster.process import LocalProcess
from localcluster.stack import write_private

INTERFACE: Final = "bare0"
#: Not the mesh's own.
PORT: Final = 51999
_MTU: Final = 1420
_KEEPALIVE: Final = "25"
_BLOCK: Final = "10.222.0"


@dataclass(frozen=True)
class _End:
    """One wireguard-go: its address among these, and its public key."""

    space: Namespace
    address: str
    public_key: str
    process: LocalProcess


class Bare:
    """Tunnels between two edge hosts: each a peer of the other, or both peers of a gateway."""

    def __init__(self, topology: Topology, folder: Path) -> None:
        self._ends: dict[str, _End] = {}
        for number, short in enumerate((*EDGES, next(iter(GATEWAYS))), start=1):
            self._ends[short] = _start(topology[short], f"{_BLOCK}.{number}", folder)

    def direct(self, one: str, other: str) -> str:
        """Connect them directly; the address of the second."""
        self._forget()
        for short, partner in ((one, other), (other, one)):
            self._peer(short, partner, {"endpoint": f"{EDGES[partner]}:{PORT}"})
        return self._ends[other].address

    def relayed(self, one: str, other: str) -> str:
        """Connect both to the first gateway; the address of the second."""
        self._forget()
        name, underlay = next(iter(GATEWAYS.items()))
        for short in (one, other):
            self._peer(name, short, {})
            self._peer(short, name, {"endpoint": f"{underlay}:{PORT}", "allowed-ips": f"{_BLOCK}.0/24"})
        return self._ends[other].address

    def close(self) -> None:
        """End them, so that nothing of them disturbs the mesh's own figures."""
        for end in self._ends.values():
            end.process.stop()

    def _peer(self, short: str, partner: str, settings: Mapping[str, str]) -> None:
        other = self._ends[partner]
        words = {"allowed-ips": f"{other.address}/32", "persistent-keepalive": _KEEPALIVE, **settings}
        arguments = [word for pair in words.items() for word in pair]
        self._ends[short].space.run(["wg", "set", INTERFACE, "peer", other.public_key, *arguments])

    def _forget(self) -> None:
        for end in self._ends.values():
            for key in end.space.run(["wg", "show", INTERFACE, "peers"]).split():
                end.space.run(["wg", "set", INTERFACE, "peer", key, "remove"])


def _start(space: Namespace, address: str, folder: Path) -> _End:
    process = space.start("bare wireguard-go", ["wireguard-go", "-f", INTERFACE], log=folder / f"{space.name}.log")
    process.wait_until(lambda: INTERFACE in space.run(["wg", "show", "interfaces"]), "answering")
    private = space.run(["wg", "genkey"])
    key = folder / f"{space.name}.key"
    write_private(key, private.encode())
    space.run(["wg", "set", INTERFACE, "private-key", str(key), "listen-port", str(PORT)])
    space.ip("address", "add", f"{address}/24", "dev", INTERFACE)
    space.ip("link", "set", INTERFACE, "mtu", str(_MTU), "up")
    return _End(space, address, space.run(["wg", "pubkey"], stdin=private).strip(), process)
