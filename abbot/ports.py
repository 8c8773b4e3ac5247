"""What the daemon needs of the host's and the containers' networks; abbot.host and abbot.container satisfy it.

All methods block and are called one at a time, from one thread that lives as long as the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from edgefarm.abbotproto import abbot_pb2 as pb

#: Provider of the interfaces in the daemon's own configuration; no request may use it.
STATIC_PROVIDER: Final = "static"


class Peer(Protocol):
    """A peer of a tunnel as it is now."""

    @property
    def public_key(self) -> str: ...
    @property
    def probe_address(self) -> str:
        """IPv6 link-local address that leads through this peer's tunnel and no other."""

    @property
    def endpoint(self) -> str:
        """As requested; empty: none."""

    @property
    def candidates(self) -> Sequence[str]:
        """More endpoints to try while the peer is not alive."""

    @property
    def current_endpoint(self) -> str:
        """In use now; empty: none."""

    @property
    def last_handshake(self) -> float:
        """Unix seconds; 0: never."""


class Tunnel(Protocol):
    """A WireGuard interface with its peers."""

    @property
    def interface(self) -> str: ...
    @property
    def probe_address(self) -> str:
        """Where probes come from: the address by which the peers probe this host."""

    @property
    def peers(self) -> Sequence[Peer]: ...


class HostNetwork(Protocol):
    """The interfaces of the host; NetworkFailed or InvalidMessage when something cannot be done, in one sentence."""

    def ensure(self, request: pb.HostNetworkConfigEnsureRequest) -> pb.HostNetworkConfigResponse:
        """Make a provider's interfaces what the request says, or change nothing."""

    def query(self, request: pb.HostNetworkConfigQueryRequest) -> pb.HostNetworkConfigResponse: ...

    def set_static(self, interfaces: Sequence[pb.HostNetworkInterface]) -> None:
        """The same as `ensure` for the interfaces of the configuration."""

    def restore(self) -> list[str]:
        """Make again what was ensured before the daemon ended; what failed, as sentences."""

    def repair(self) -> list[str]:
        """Mend what somebody deleted or changed; what failed, as sentences."""

    def tunnels(self) -> Sequence[Tunnel]: ...

    def set_alive(self, interface: str, alive: frozenset[str], rtts: Mapping[str, float]) -> None:
        """Let the peers with these public keys carry what they list; `rtts` are seconds by public key."""

    def set_endpoint(self, interface: str, public_key: str, endpoint: str) -> None: ...

    def close(self) -> None:
        """The daemon ends: remove what shall not stay."""


class ContainerNetwork(Protocol):
    """The networks of containers; NetworkFailed or InvalidMessage as above."""

    def ensure_config(
        self, request: pb.ContainerNetworkConfigEnsureRequest
    ) -> pb.ContainerNetworkStatusListResponse: ...
    def query_config(self, request: pb.ContainerNetworkConfigQueryRequest) -> pb.ContainerNetworkConfigResponse: ...
    def ensure(self, request: pb.ContainerNetworkEnsureRequest) -> pb.ContainerNetworkStatusResponse: ...
    def restore(self, request: pb.ContainerNetworkRestoreRequest) -> pb.ContainerNetworkStatusResponse: ...
    def delete(self, request: pb.ContainerNetworkDeleteRequest) -> None: ...
    def query(self, request: pb.ContainerNetworkQueryRequest) -> pb.ContainerNetworkStatusResponse: ...
