"""Gives nodes and pods loopback addresses, so that several runners on one machine never share one."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final

from localcluster.process import StartError

#: The kubelet's port; holding it on the block's first address reserves the block.
_CLAIM_PORT: Final = 10250
_FIRST_POD: Final = 32


class AddressBlock:
    """A block 127.<a>.<b>.0/24 that belongs to this process while it lives."""

    def __init__(self, prefix: str, claim: socket.socket) -> None:
        self._prefix = prefix
        self._claim = claim
        self._free = deque(range(_FIRST_POD, 255))

    @classmethod
    def claim(cls) -> AddressBlock:
        """Reserve a block that no other runner of this machine uses."""
        for attempt in range(250 * 254):
            # 127.0 and 127.1 are left to servers that people start by hand.
            high, low = divmod((os.getpid() * 7 + attempt) % (250 * 254), 254)
            prefix = f"127.{high + 4}.{low + 1}"
            claim = socket.socket()
            try:
                claim.bind((f"{prefix}.1", _CLAIM_PORT))
                claim.listen(1)
            except OSError:
                claim.close()
            else:
                return cls(prefix, claim)
        raise StartError("no free block of loopback addresses for pods")

    def node(self, index: int) -> str:
        """Address of the node with this index, from 0 on."""
        return f"{self._prefix}.{index + 1}"

    def take(self) -> str:
        """An address for a pod; the one that is free for the longest time."""
        return f"{self._prefix}.{self._free.popleft()}"

    def give_back(self, address: str) -> None:
        self._free.append(int(address.rpartition(".")[2]))

    def close(self) -> None:
        self._claim.close()
