"""Gives nodes and pods loopback addresses, so that several runners on one machine never share one."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final

from localcluster.process import StartError

#: Nodes are asked for logs here; holding it on the block's first address reserves the block.
KUBELET_PORT: Final = 10250
#: 127.0 to 127.3 are left to servers that people start by hand.
_BLOCKS: Final = range(4, 255)


class AddressBlock:
    """A block 127.<a>.0.0/16 that belongs to this process while it lives."""

    def __init__(self, prefix: str, claim: socket.socket) -> None:
        self._prefix = prefix
        self._claim = claim
        self._free = deque(f"{prefix}.{high}.{low}" for high in range(1, 255) for low in range(1, 255))
        self._held: dict[str, str] = {}

    @classmethod
    def claim(cls) -> AddressBlock:
        """Reserve a block that no other runner of this machine uses."""
        for attempt in range(len(_BLOCKS)):
            prefix = f"127.{_BLOCKS[(os.getpid() + attempt) % len(_BLOCKS)]}"
            claim = socket.socket()
            try:
                claim.bind((f"{prefix}.0.1", KUBELET_PORT))
                claim.listen(1)
            except OSError:
                claim.close()
            else:
                return cls(prefix, claim)
        raise StartError("no free block of loopback addresses for pods")

    def node(self, index: int) -> str:
        """Address of the node with this index, from 0 on."""
        return f"{self._prefix}.0.{index + 1}"

    def listen(self, index: int) -> socket.socket:
        """A socket that listens on the kubelet's port of the node with this index."""
        return self._claim.dup() if index == 0 else socket.create_server((self.node(index), KUBELET_PORT))

    def take(self, holder: str = "") -> str:
        """An address for a pod: the one that has been free for the longest time.

        A `holder` gets the same one whenever it asks, and nobody else gets that.
        """
        if not holder:
            return self._free.popleft()
        if holder not in self._held:
            self._held[holder] = self._free.popleft()
        return self._held[holder]

    def give_back(self, address: str) -> None:
        """Hand in what a pod without a holder had; the address of a holder stays its own."""
        if address not in self._held.values():
            self._free.append(address)

    def close(self) -> None:
        self._claim.close()
