"""WireGuard devices of the kernel."""

from __future__ import annotations

from abbot.netlink.rtnl import Rtnl
from abbot.netlink.wireguard import KernelWireguard
from abbot.wireguard.device import Device, DeviceChange

#: The kernel's name for this kind of link.
KIND = "wireguard"


class Kernel:
    """The devices that the kernel serves."""

    def __init__(self, rtnl: Rtnl) -> None:
        self._rtnl = rtnl
        self._wireguard = KernelWireguard()

    def create(self, name: str) -> None:
        """Make the link; KernelRefused with EOPNOTSUPP where the kernel has no WireGuard."""
        self._rtnl.create_link(name, KIND)

    def delete(self, name: str) -> None:
        """Remove the link."""
        link = self._rtnl.link(name)
        if link is not None:
            self._rtnl.delete_link(link)

    def get(self, name: str) -> Device:
        """The device as it is now."""
        return self._wireguard.get(name)

    def change(self, name: str, change: DeviceChange) -> None:
        """Change the device, peer by peer."""
        self._wireguard.change(name, change)
