"""Claims the loopback range out of which one API server gives its Services their cluster IPs."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Network
from typing import Final

from localcluster.process import StartError

#: 127.2 and 127.3, which no node runner takes (`localcluster.node.addresses`).
_FIRST_OCTETS: Final = (2, 3)
_CLAIM_PORT: Final = 10256


class ServiceRange:
    """A network 127.<a>.<b>.0/24 that belongs to this process while it lives."""

    def __init__(self, network: IPv4Network, claim: socket.socket) -> None:
        self.network = network
        self._claim = claim

    @classmethod
    def claim(cls) -> ServiceRange:
        """Reserve a range that no other API server of this machine uses; StartError when there is none."""
        count = 256 * len(_FIRST_OCTETS)
        for attempt in range(count):
            high, low = divmod((os.getpid() + attempt) % count, 256)
            network = IPv4Network(f"127.{_FIRST_OCTETS[high]}.{low}.0/24")
            claim = socket.socket()
            try:
                # The network's own address, which no Service ever gets.
                claim.bind((str(network.network_address), _CLAIM_PORT))
                claim.listen(1)
            except OSError:
                claim.close()
            else:
                return cls(network, claim)
        raise StartError("no free range of loopback addresses for Services")

    def close(self) -> None:
        self._claim.close()
