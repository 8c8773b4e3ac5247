"""Finds out on which node the client of a connection runs, from what the kernel tells about its socket."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from localcluster.network.forward import Address

_PROC: Final = Path("/proc")


class Clients:
    """Knows the node of every process that a container started.

    `node_of_session` maps the session of a container's first process to the name of its node (None: no container).
    """

    def __init__(self, node_of_session: Callable[[int], str | None]) -> None:
        self._node_of_session = node_of_session

    def locate(self, client: Address, server: Address) -> str | None:
        """The node on which the process runs that connected from `client` to `server`; None when it is no pod's."""
        inode = _inode(client, server)
        if inode is None:
            return None
        wanted = f"socket:[{inode}]"
        others = []
        for pid in _processes():
            node = self._node_of(pid)
            if node is None:
                others.append(pid)
            elif _has_open(pid, wanted):
                return node
        # A container may start sessions of its own; looking at ancestors takes longer, so it comes second.
        return next((self._node_of_ancestor(pid) for pid in others if _has_open(pid, wanted)), None)

    def _node_of(self, pid: int) -> str | None:
        try:
            return self._node_of_session(os.getsid(pid))
        except OSError:
            return None

    def _node_of_ancestor(self, pid: int) -> str | None:
        node = None
        while pid > 1 and node is None:
            pid = _parent(pid)
            node = self._node_of(pid)
        return node


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def _parent(pid: int) -> int:
    try:
        # The name in parentheses may hold anything, spaces and parentheses, too.
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _has_open(pid: int, wanted: str) -> bool:
    folder = f"{_PROC}/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}") == wanted:
                    return True
    return False


def _inode(client: Address, server: Address) -> str | None:
    """The inode of the client's end of a connection."""
    table = (_PROC / "net" / "tcp").read_text()
    found = table.find(f": {_as_kernel_writes(client)} {_as_kernel_writes(server)} ")
    if found < 0:
        return None
    # After the colon: both addresses, state, queues, timer, retransmissions, user, timeout, inode.
    return table[found : found + 200].split()[9]


def _as_kernel_writes(address: Address) -> str:
    """`0100007F:1F90`: the address as a number in the machine's own byte order, in hexadecimal digits."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"
