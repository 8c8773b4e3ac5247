"""Networks without interfaces: for tests of what stands before them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from abbot.ports import Tunnel
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import NetworkFailed


@dataclass
class FakeHost:
    """Remembers what it was asked for. A request of provider `broken` fails, one of `crash` meets a mistake, one of
    `slow` waits for `go`."""

    ensured: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    busy: bool = False
    go: threading.Event = field(default_factory=threading.Event)

    def ensure(self, request: pb.HostNetworkConfigEnsureRequest) -> pb.HostNetworkConfigResponse:
        assert not self.busy, "two requests at the same time"
        self.busy = True
        try:
            self.threads.add(threading.get_ident())
            if request.provider == "slow":
                self.go.wait(20)
            if request.provider == "broken":
                raise NetworkFailed("wg0: cannot be made")
            if request.provider == "crash":
                raise RuntimeError("private text")
            self.ensured.append(request.provider)
            return pb.HostNetworkConfigResponse(actual=request.expected)
        finally:
            self.busy = False

    def query(self, request: pb.HostNetworkConfigQueryRequest) -> pb.HostNetworkConfigResponse:
        names = request.providers
        interfaces = [pb.HostNetworkInterface(metadata=pb.NetworkInterface(name=name)) for name in names]
        return pb.HostNetworkConfigResponse(actual=interfaces)

    def set_static(self, interfaces: Sequence[pb.HostNetworkInterface]) -> None:
        self.ensured.append("static")

    def restore(self) -> list[str]:
        return []

    def repair(self) -> list[str]:
        return []

    def tunnels(self) -> Sequence[Tunnel]:
        return ()

    def set_alive(self, interface: str, alive: frozenset[str], rtts: Mapping[str, float]) -> None:
        raise AssertionError("there are no tunnels")

    def set_endpoint(self, interface: str, public_key: str, endpoint: str) -> None:
        raise AssertionError("there are no tunnels")

    def close(self) -> None:
        self.ensured.append("closed")


@dataclass
class FakeContainers:
    """Knows one container, `c1`."""

    deleted: list[str] = field(default_factory=list)

    def ensure_config(self, request: pb.ContainerNetworkConfigEnsureRequest) -> pb.ContainerNetworkStatusListResponse:
        return pb.ContainerNetworkStatusListResponse(
            container_networks={"c1": pb.ContainerNetworkStatusResponse(pid=1)}
        )

    def query_config(self, request: pb.ContainerNetworkConfigQueryRequest) -> pb.ContainerNetworkConfigResponse:
        return pb.ContainerNetworkConfigResponse(ipv4_subnet="10.0.0.0/24")

    def ensure(self, request: pb.ContainerNetworkEnsureRequest) -> pb.ContainerNetworkStatusResponse:
        return pb.ContainerNetworkStatusResponse(pid=request.pid)

    def restore(self, request: pb.ContainerNetworkRestoreRequest) -> pb.ContainerNetworkStatusResponse:
        return pb.ContainerNetworkStatusResponse(pid=request.pid)

    def delete(self, request: pb.ContainerNetworkDeleteRequest) -> None:
        self.deleted.append(request.container_id)

    def query(self, request: pb.ContainerNetworkQueryRequest) -> pb.ContainerNetworkStatusResponse:
        if request.container_id != "c1":
            raise NetworkFailed(f"container {request.container_id!r} is not known")
        return pb.ContainerNetworkStatusResponse(pid=1)
