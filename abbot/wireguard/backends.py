"""Chooses for each WireGuard device who serves it: the kernel, where it can, else a process in userspace."""

from __future__ import annotations

import errno
from typing import Literal

from abbot.netlink.rtnl import Rtnl
from abbot.netlink.values import KernelRefused
from abbot.wireguard.device import Device, DeviceChange
from abbot.wireguard.kernel import Kernel
from abbot.wireguard.userspace import Userspace

BackendName = Literal["auto", "kernel", "userspace"]


class Backends:
    """All WireGuard devices of this host, by interface name, whoever serves them."""

    def __init__(self, choice: BackendName, rtnl: Rtnl, userspace: Userspace) -> None:
        self._choice = choice
        self._kernel = Kernel(rtnl)
        self._userspace = userspace

    def create(self, name: str, log_level: str = "") -> None:
        """Make a device; its link is down and it has no configuration."""
        if self._choice != "userspace":
            try:
                self._kernel.create(name)
            except KernelRefused as error:
                if self._choice == "kernel" or error.code != errno.EOPNOTSUPP:
                    raise
            else:
                return
        self._userspace.create(name, log_level)

    def delete(self, name: str) -> None:
        """Remove a device; no error when it is gone."""
        if self._userspace.serves(name):
            self._userspace.delete(name)
        else:
            self._kernel.delete(name)

    def get(self, name: str) -> Device:
        """The device as it is now, with its private key."""
        return self._userspace.get(name) if self._userspace.serves(name) else self._kernel.get(name)

    def change(self, name: str, change: DeviceChange) -> None:
        """Change a device; after an error a part of it may be done."""
        if self._userspace.serves(name):
            self._userspace.change(name, change)
        else:
            self._kernel.change(name, change)

    def in_userspace(self, name: str) -> bool:
        """Whether a process of ours was started for this device: it ends with us."""
        return self._userspace.serves(name)

    def alive(self, name: str) -> bool:
        """Whether this process still runs."""
        return self._userspace.alive(name)

    def close(self) -> None:
        """Stop the processes."""
        self._userspace.close()
